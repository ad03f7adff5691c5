//! The workspace's own `/etc/passwd` and `/etc/group`, read without NSS and with bounds.
//!
//! Format: passwd(5), group(5). The files belong to the workload: lines that make no sense are
//! skipped, never an error.

use std::{fs, io::Read, os::unix::fs::OpenOptionsExt};

use pinfold_types::{Error, ErrorCode, name::excerpt};

/// Bytes read of each file.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Supplementary groups of one user.
pub const MAX_GROUPS: usize = 256;

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, the main one among them.
    pub groups: Vec<u32>,
    /// User name, or the number as text.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The two files, as text that may be anything.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

fn read(path: &str) -> Vec<u8> {
    let mut text = Vec::new();
    // NONBLOCK: the workload may have put a FIFO there.
    let open = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc_nonblock())
        .open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text));
    match open {
        Ok(_) => text,
        Err(_) => Vec::new(),
    }
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= 64 << 10)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(':').collect())
}

impl Accounts {
    /// Reads both files; a missing one is an empty one.
    pub fn load() -> Self {
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Both files from memory.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self { passwd: passwd.to_vec(), group: group.to_vec() }
    }

    fn users(&self) -> impl Iterator<Item = Account<'_>> {
        lines(&self.passwd).filter_map(|fields| match fields.as_slice() {
            [name, _, uid, gid, _, home, shell, ..] if !name.is_empty() => {
                Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home, shell })
            }
            _ => None,
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        lines(&self.group).filter_map(|fields| match fields.as_slice() {
            [name, _, gid, members, ..] if !name.is_empty() => {
                Some((*name, gid.parse().ok()?, *members))
            }
            _ => None,
        })
    }

    fn group(&self, text: &str) -> Result<u32, Error> {
        if let Ok(gid) = text.parse::<u32>() {
            return usable(gid, text);
        }
        self.groups().find(|(name, ..)| *name == text).map(|(_, gid, _)| gid).ok_or_else(|| {
            Error::new(
                ErrorCode::NotFound,
                format!("the workspace has no group {:?}", excerpt(text)),
            )
            .hint("add it inside with groupadd, or give its number")
        })
    }

    /// Finds `user[:group]`, each a name or a number. A number need not be in the files.
    ///
    /// # Errors
    /// `not_found` for a name that is not in the files, `invalid_argument` for `-1`.
    pub fn find(&self, text: &str) -> Result<Identity, Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let number = user.parse::<u32>().ok();
        let account = match number {
            Some(uid) => self.users().find(|account| account.uid == uid),
            None => self.users().find(|account| account.name == user),
        };
        let mut who = match (account, number) {
            (Some(account), _) => Identity {
                uid: usable(account.uid, text)?,
                gid: usable(account.gid, text)?,
                groups: Vec::new(),
                name: account.name.to_owned(),
                home: absolute(account.home, "/"),
                shell: absolute(account.shell, "/bin/sh"),
            },
            (None, Some(uid)) => Identity {
                uid: usable(uid, text)?,
                gid: 0,
                groups: Vec::new(),
                name: uid.to_string(),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            },
            (None, None) if user == "root" => Identity {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                name: "root".to_owned(),
                home: "/root".to_owned(),
                shell: "/bin/sh".to_owned(),
            },
            (None, None) => {
                return Err(Error::new(
                    ErrorCode::NotFound,
                    format!("the workspace has no user {:?}", excerpt(user)),
                )
                .hint("add it inside with useradd, or give its number"));
            }
        };
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            // A group asked for replaces all others, as everywhere.
            who.gid = self.group(group)?;
            who.groups = vec![who.gid];
            return Ok(who);
        }
        who.groups.push(who.gid);
        let member = self
            .groups()
            .filter(|(_, _, members)| members.split(',').any(|member| member == who.name))
            .map(|(_, gid, _)| gid);
        for gid in member {
            if who.groups.len() < MAX_GROUPS && gid != u32::MAX && !who.groups.contains(&gid) {
                who.groups.push(gid);
            }
        }
        Ok(who)
    }
}

/// `(uid_t) -1` means "leave as it is" to the kernel.
fn usable(id: u32, text: &str) -> Result<u32, Error> {
    if id == u32::MAX {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{:?}: 4294967295 is not an id", excerpt(text)),
        ));
    }
    Ok(id)
}

fn absolute(path: &str, otherwise: &str) -> String {
    if path.starts_with('/') && !path.contains('\0') { path } else { otherwise }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1001:Ann,,:/home/ann:/bin/zsh\n\
        \xff\xfe:x:1:1::/:/bin/sh\nnohome:x:1002:1002::relative:\nminus:x:4294967295:1::/:/bin/sh\n";
    const GROUP: &[u8] =
        b"root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\nvideo:x:44:ann\nannie:x:45:annie\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        let ann = accounts.find("ann").expect("there");
        assert_eq!((ann.uid, ann.gid, ann.groups.as_slice()), (1000, 1001, &[1001, 10, 44][..]));
        assert_eq!((ann.home.as_str(), ann.shell.as_str()), ("/home/ann", "/bin/zsh"));
        assert_eq!(accounts.find("1000").expect("there"), ann);
        let grouped = accounts.find("ann:video").expect("there");
        assert_eq!((grouped.gid, grouped.groups.as_slice()), (44, &[44][..]));
        let unknown = accounts.find("4242:77").expect("a number is enough");
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (4242, 77, "/"));
        assert_eq!(accounts.find("nohome").expect("there").home, "/");
    }

    #[test]
    fn what_is_not_there_is_an_error_that_names_it() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (text, code) in [
            ("bob", ErrorCode::NotFound),
            ("ann:nogroup", ErrorCode::NotFound),
            ("minus", ErrorCode::InvalidArgument),
            ("4294967295", ErrorCode::InvalidArgument),
            ("0:4294967295", ErrorCode::InvalidArgument),
            ("-1", ErrorCode::NotFound),
        ] {
            assert_eq!(accounts.find(text).expect_err(text).code, code, "{text}");
        }
        assert_eq!(Accounts::default().find("root").expect("always").uid, 0);
    }

    proptest! {
        #[test]
        fn any_files_and_any_name_are_answered(
            passwd in prop::collection::vec(any::<u8>(), 0..400),
            group in prop::collection::vec(any::<u8>(), 0..400),
            name in "\\PC{0,20}",
        ) {
            let accounts = Accounts::parse(&passwd, &group);
            let _ = accounts.find(&name);
            let _ = accounts.find("0");
        }
    }
}
