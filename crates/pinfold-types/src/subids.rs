//! An ordinary user's sub-ids, as `/etc/subuid` and `/etc/subgid` give them (subuid(5)).
//!
//! Pure: who calls reads the files. Every room takes the same range, so that what one makes the
//! others can use.

/// Ids of a workspace: 0 to 65535, nobody's 65534 among them.
pub const SUB_IDS: u32 = 65_536;

/// A range of host ids, the same for users and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubIdRange {
    /// First host id. Never 0.
    pub base: u32,
    /// How many, at least [`SUB_IDS`].
    pub count: u32,
}

/// The longest range of at least [`SUB_IDS`] ids that both files give to the user, from the texts
/// of `/etc/passwd` (passwd(5)) and the two files.
pub fn sub_id_range(passwd: &str, users: &str, groups: &str, uid: u32) -> Option<SubIdRange> {
    let name = user_name(passwd, uid);
    let (users, groups) = (ranges(users, name, uid), ranges(groups, name, uid));
    let pieces = users.iter().flat_map(|user| {
        groups.iter().filter_map(move |group| {
            let base = user.base.max(group.base);
            let end = user.base.checked_add(user.count)?.min(group.base.checked_add(group.count)?);
            let count = end.checked_sub(base)?;
            (base > 0 && count >= SUB_IDS).then_some(SubIdRange { base, count })
        })
    });
    // The first of the longest: what is added to the files later changes nothing.
    pieces.reduce(|best, piece| if piece.count > best.count { piece } else { best })
}

/// The name of a user in the text of `/etc/passwd`.
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then_some(name)
    })
}

/// What to do where [`sub_id_range`] finds nothing.
pub fn sub_id_mend(passwd: &str, uid: u32) -> String {
    let user = user_name(passwd, uid).map_or_else(|| uid.to_string(), str::to_owned);
    format!(
        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}, with a \
         range that no line of /etc/subuid and /etc/subgid has yet"
    )
}

fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<SubIdRange> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (base, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(owner) == name || owner == number).then_some(SubIdRange { base, count })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbad\n";

    fn range(users: &str, groups: &str) -> Option<SubIdRange> {
        sub_id_range(PASSWD, users, groups, 1000)
    }

    #[test]
    fn the_common_part_counts() {
        let users = "ann:100000:65536\nbob:1:2\n1000:300000:200000\n";
        let found = range(users, "ann:350000:65536").expect("a common part");
        assert_eq!(found, SubIdRange { base: 350_000, count: 65_536 });
        assert_eq!(range("ann:100000:65536", "ann:100001:65536"), None);
        assert_eq!(range("ann:100000:65535", "ann:100000:65535"), None);
        let wild = "ann:4294967295:65536\nann:0:1048576\nann\nann:x:y\n:::\n";
        assert_eq!(range(wild, wild), None);
    }

    #[test]
    fn of_several_the_longest_is_taken_and_of_equals_the_first() {
        let two = "ann:200000:65536\nann:100000:65536\n";
        assert_eq!(range(two, two).expect("one of them").base, 200_000);
        let longer = format!("{two}ann:400000:131072\n");
        assert_eq!(range(&longer, &longer).expect("one of them").base, 400_000);
    }

    #[test]
    fn names_are_found_by_uid() {
        assert_eq!(user_name(PASSWD, 1000), Some("ann"));
        assert_eq!(user_name(PASSWD, 7), None);
        assert!(sub_id_mend(PASSWD, 1000).contains(" ann,"));
        assert!(sub_id_mend(PASSWD, 7).contains(" 7,"));
    }
}
