//! Files of a user's sub-ids. As an ordinary user the server does not own what lies in a
//! workspace's slots; a helper in a user namespace, where this user is root and its sub-ids are
//! mapped, makes, copies, measures and removes it.
//!
//! The helper is `unshare` (util-linux) with `newuidmap` (uidmap), running coreutils with an
//! argument vector; the same uidmap that every rootless workspace needs.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use crate::error::{At, DiskError};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes read from the helper.
const MAX_OUTPUT: u64 = 64 << 10;
/// Ids that a workspace needs.
const LEAST_IDS: u32 = 65_536;

/// The first range of sub-ids of this user, with at least 65,536 ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubIds {
    uid: u32,
    gid: u32,
}

impl SubIds {
    pub(crate) fn of_this_user() -> Result<Self, DiskError> {
        let uid = rustix::process::getuid().as_raw();
        let name = user_name(uid);
        let first = |file: &str| -> Result<u32, DiskError> {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            first_range(&text, uid, name.as_deref()).ok_or_else(|| DiskError::Unavailable {
                what: format!("{file} gives user {uid} no range of {LEAST_IDS} ids"),
                mend: format!(
                    "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
                    name.as_deref().unwrap_or("USER")
                ),
            })
        };
        Ok(Self { uid: first("/etc/subuid")?, gid: first("/etc/subgid")? })
    }

    /// Makes the root of the workspace (the first sub-id) the owner of `paths` below `disk`.
    pub(crate) fn give(self, disk: &Path, paths: &[String]) -> Result<(), DiskError> {
        let mut arguments = vec!["chown".into(), "-h".into(), "--".into(), "1:1".into()];
        arguments.extend(paths.iter().map(|path| disk.join(path).into_os_string()));
        self.run(&arguments).map(drop)
    }

    pub(crate) fn copy(self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.run(&[
            "cp".into(),
            "-a".into(),
            "--reflink=auto".into(),
            "--no-target-directory".into(),
            "--".into(),
            from.into(),
            to.into(),
        ])
        .map(drop)
    }

    pub(crate) fn remove(self, path: &Path) -> Result<(), DiskError> {
        self.run(&["rm".into(), "-rf".into(), "--one-file-system".into(), "--".into(), path.into()])
            .map(drop)
    }

    /// Bytes on the disk, and files and directories.
    pub(crate) fn measure(self, path: &Path) -> Result<(u64, u64), DiskError> {
        let number = |inodes: bool| -> Result<u64, DiskError> {
            let what = if inodes { "--inodes" } else { "--block-size=1" };
            let said =
                self.run(&["du".into(), "-s".into(), what.into(), "--".into(), path.into()])?;
            let first = said.split_whitespace().next();
            first.and_then(|text| text.parse().ok()).ok_or(DiskError::Helper(said))
        };
        Ok((number(false)?, number(true)?))
    }

    fn run(self, arguments: &[std::ffi::OsString]) -> Result<String, DiskError> {
        // Inside, 0 is this user and 1 onward are the sub-ids, each counted from its range's
        // first. Written out, because `--map-auto` has changed its meaning over the years.
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(format!("--map-users={},1,{LEAST_IDS}", self.uid))
            .arg(format!("--map-groups={},1,{LEAST_IDS}", self.gid))
            .arg("--")
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .at("run", "unshare")?;
        let read = |from: Option<&mut dyn Read>| -> Result<String, DiskError> {
            let mut bytes = Vec::new();
            if let Some(from) = from {
                from.take(MAX_OUTPUT).read_to_end(&mut bytes).at("read from", "unshare")?;
            }
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        // stderr first and bounded: these programs say one short line or nothing on stdout.
        let mut stderr = child.stderr.take();
        let said = read(stderr.as_mut().map(|stderr| stderr as &mut dyn Read))?;
        drop(stderr);
        let mut stdout = child.stdout.take();
        let answer = read(stdout.as_mut().map(|stdout| stdout as &mut dyn Read))?;
        drop(stdout);
        let status = child.wait().at("wait for", "unshare")?;
        if status.success() {
            Ok(answer)
        } else {
            Err(DiskError::Helper(pinfold_types::name::excerpt(&said)))
        }
    }
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

/// The start of the first large enough range of a subuid(5) file for this user.
fn first_range(text: &str, uid: u32, name: Option<&str>) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let mine = Some(who) == name || who.parse() == Ok(uid);
        (mine && count >= LEAST_IDS && start.checked_add(count).is_some()).then_some(start)
    })
}

#[cfg(test)]
mod tests {
    use super::first_range;

    #[test]
    fn the_first_large_enough_range_of_this_user_is_taken() {
        let text = "root:1:65536\nann:200000:1000\nann:300000:65536\n1001:400000:65536\nbroken";
        assert_eq!(first_range(text, 1000, Some("ann")), Some(300_000));
        assert_eq!(first_range(text, 1001, None), Some(400_000));
        assert_eq!(first_range(text, 1002, Some("bob")), None);
        assert_eq!(first_range("ann:4294967295:65536", 1, Some("ann")), None);
    }
}
