//! An ordinary user's range of sub-ids (subuid(5), subgid(5)).

use std::fs;

use pinfold_types::{Error, ErrorCode, Result};

use crate::spec::IdRange;

/// Fewest ids worth having: nobody's 65534 must be among them.
const FEWEST: u32 = 65_535;

/// The range that both `/etc/subuid` and `/etc/subgid` give to the user of this process.
pub fn sub_ids() -> Result<IdRange> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&passwd, uid);
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (users, groups) = (read("/etc/subuid"), read("/etc/subgid"));
    common(&ranges(&users, name, uid), &ranges(&groups, name, uid)).ok_or_else(|| {
        let user = name.map_or_else(|| uid.to_string(), str::to_owned);
        Error::new(
            ErrorCode::CannotEnforce,
            format!("{user} has no common range of {FEWEST} ids in /etc/subuid and /etc/subgid"),
        )
        .hint(format!(
            "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        ))
    })
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then_some(name)
    })
}

fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (base, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(owner) == name || owner == number).then_some(IdRange { base, count })
        })
        .collect()
}

/// The longest piece that lies in a range of each.
fn common(users: &[IdRange], groups: &[IdRange]) -> Option<IdRange> {
    let pieces = users.iter().flat_map(|user| {
        groups.iter().filter_map(move |group| {
            let base = user.base.max(group.base);
            let end = user.base.checked_add(user.count)?.min(group.base.checked_add(group.count)?);
            let count = end.checked_sub(base)?;
            (base > 0 && count >= FEWEST).then_some(IdRange { base, count })
        })
    });
    pieces.max_by_key(|piece| piece.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_part_counts() {
        let users = ranges("ann:100000:65536\nbob:1:2\n1000:300000:200000\n", Some("ann"), 1000);
        assert_eq!(users.len(), 2);
        let groups = [IdRange { base: 350_000, count: 65_536 }];
        assert_eq!(common(&users, &groups), Some(IdRange { base: 350_000, count: 65_536 }));
        assert_eq!(common(&users[..1], &groups), None);
        let wild = [IdRange { base: u32::MAX, count: 65_536 }, IdRange { base: 0, count: 1 << 20 }];
        assert_eq!(common(&wild, &wild), None);
    }

    #[test]
    fn names_are_found_by_uid() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbad\n";
        assert_eq!(name_of(passwd, 1000), Some("ann"));
        assert_eq!(name_of(passwd, 7), None);
        assert!(ranges("ann\nann:x:y\n:::\n", Some("ann"), 1000).is_empty());
    }
}
