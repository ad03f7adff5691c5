//! An ordinary user's range of sub-ids.

use std::fs;

use pinfold_types::{
    Error, ErrorCode, Result,
    subids::{SUB_IDS, sub_id_mend, sub_id_range},
};

use crate::spec::IdRange;

/// The range that both `/etc/subuid` and `/etc/subgid` give to the user of this process.
pub fn sub_ids() -> Result<IdRange> {
    let uid = rustix::process::getuid().as_raw();
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let passwd = read("/etc/passwd");
    match sub_id_range(&passwd, &read("/etc/subuid"), &read("/etc/subgid"), uid) {
        Some(range) => Ok(IdRange { base: range.base, count: range.count }),
        None => Err(Error::new(
            ErrorCode::CannotEnforce,
            format!("/etc/subuid and /etc/subgid give user {uid} no common range of {SUB_IDS} ids"),
        )
        .hint(sub_id_mend(&passwd, uid))),
    }
}
