//! Files of a user's sub-ids. As an ordinary user the server does not own what lies in a
//! workspace's slots; a helper in a user namespace, where this user is root and its sub-ids are
//! mapped, makes, copies, measures and removes it.
//!
//! The helper is `unshare` (util-linux) with `newuidmap` (uidmap), running coreutils with an
//! argument vector; the same uidmap that every rootless workspace needs.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use pinfold_types::subids::{SUB_IDS, sub_id_mend, sub_id_range};
use rustix::process::{Pid, Signal};

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

    /// The id of a workspace's root.
    pub(crate) fn base(self) -> u32 {
        self.base
    }

    /// Makes `to`, a user's and a group's id of the range, the owner of `paths` below `disk`.
    pub(crate) fn give(
        self,
        disk: &Path,
        paths: &[String],
        to: (u32, u32),
    ) -> Result<(), DiskError> {
        // In the helper 0 is this user, and the range begins at 1.
        let inside = |id: u32| id.saturating_sub(self.base).saturating_add(1);
        let owner = format!("{}:{}", inside(to.0), inside(to.1));
        let mut arguments = vec!["chown".into(), "-h".into(), "--".into(), owner.into()];
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
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .at("run", "unshare")?;
        let answer = listen(child.stdout.take());
        let said = listen(child.stderr.take());
        let status = child.wait().at("wait for", "unshare")?;
        // Where it was refused its namespace, its own helper waits for ever and keeps our pipes.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let heard = |from: JoinHandle<String>| from.join().unwrap_or_default();
        let (answer, said) = (heard(answer), heard(said));
        if status.success() {
            Ok(answer)
        } else {
            Err(DiskError::Helper(pinfold_types::name::excerpt(&said)))
        }
    }
}

/// Reads all that a helper says, and keeps the first of it.
fn listen(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = (&mut from).take(MAX_OUTPUT).read_to_end(&mut kept);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        String::from_utf8_lossy(&kept).trim().to_owned()
    })
}
