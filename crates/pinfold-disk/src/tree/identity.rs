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

use pinfold_types::subids::{SUB_IDS, sub_id_mend, sub_id_range};

use crate::error::{At, DiskError};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes read from the helper.
const MAX_OUTPUT: u64 = 64 << 10;
/// The range of sub-ids that all workspaces of this user have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubIds {
    base: u32,
}

impl SubIds {
    pub(crate) fn of_this_user() -> Result<Self, DiskError> {
        let uid = rustix::process::getuid().as_raw();
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let passwd = read("/etc/passwd");
        match sub_id_range(&passwd, &read("/etc/subuid"), &read("/etc/subgid"), uid) {
            Some(range) => Ok(Self { base: range.base }),
            None => Err(DiskError::Unavailable {
                what: format!(
                    "/etc/subuid and /etc/subgid give user {uid} no common range of {SUB_IDS} ids"
                ),
                mend: sub_id_mend(&passwd, uid),
            }),
        }
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
            .arg(format!("--map-users={},1,{SUB_IDS}", self.base))
            .arg(format!("--map-groups={},1,{SUB_IDS}", self.base))
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
