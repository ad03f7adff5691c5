//! The range of host ids that an ordinary user may use, from `/etc/subuid` and `/etc/subgid`
//! (subuid(5)). All workspaces of a user share it: their images are unpacked under these ids.

use std::fs;

use pinfold_namespace::IdRange;
use pinfold_types::{Error, ErrorCode, Result};

/// Fewest ids that hold the users of an ordinary distribution.
const FEWEST: u32 = 65_536;

/// The user's own range, the same for users and groups.
pub(crate) fn of_this_user() -> Result<IdRange> {
    let uid = rustix::process::getuid().as_raw();
    let name = fs::read_to_string("/etc/passwd").ok().and_then(|text| name_of(&text, uid));
    let read = |path: &str| {
        fs::read_to_string(path).ok().and_then(|text| range_of(&text, uid, name.as_deref()))
    };
    match (read("/etc/subuid"), read("/etc/subgid")) {
        (Some(users), Some(groups)) if users == groups => Ok(users),
        (Some(_), Some(_)) => Err(refuse("the ranges in /etc/subuid and /etc/subgid differ", uid)),
        _ => Err(refuse("there is no range of 65536 ids in /etc/subuid and /etc/subgid", uid)),
    }
}

fn refuse(why: &str, uid: u32) -> Error {
    Error::new(ErrorCode::CannotEnforce, format!("no ids to map for user {uid}: {why}")).hint(
        format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {uid}"),
    )
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn range_of(text: &str, uid: u32, name: Option<&str>) -> Option<IdRange> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        let base: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (ours && count >= FEWEST && base > 0).then_some(IdRange { base, count: FEWEST })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "other:1:65536\nsmall:5:10\nana:100000:65536\n1001:200000:131072\n";
        let found = range_of(text, 1000, Some("ana")).expect("by name");
        assert_eq!((found.base, found.count), (100_000, 65_536));
        assert_eq!(range_of(text, 1001, None).expect("by number").base, 200_000);
        assert!(range_of(text, 7, Some("small")).is_none());
        let passwd = "root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ana"));
    }
}
