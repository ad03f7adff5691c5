//! An ordinary user with a range of sub-ids, for one test.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    programs::{bin, proc_text},
    server::Output,
};

/// Ids of a workspace.
const SUB_IDS: u32 = 65_536;
/// Above the ids of people and of workspaces, below those that the doctor tries with.
const FIRST_SUB_ID: u32 = 2_300_000_000;
const FIRST_UID: u32 = 1_000_000_000;
/// Longest that killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// The programs that a user runs. They are given to it in a directory that it can reach, which
/// the build tree may not be.
const PROGRAMS: [&str; 4] = ["pinfold", "pinfold-guest", "pinfold-launcher", "pinfold-attack"];

/// A user that only the commands of [`User::command`] know: they run in a mount namespace where
/// `/etc/passwd`, `/etc/subuid` and `/etc/subgid` have a line more. So nothing of the machine is
/// changed, tests in parallel have different users, and nothing stays of one that was killed.
/// Dropping it ends everything that runs under its ids.
#[derive(Debug)]
pub struct User {
    directory: tempfile::TempDir,
    uid: u32,
}

impl User {
    /// A new user with an empty home. Takes root.
    ///
    /// # Panics
    /// When its files cannot be made, or the programs are not built.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Unique among the tests that run now: a process of its own each, or a number more.
        let number = std::process::id() % 5000 * 4 + NEXT.fetch_add(1, Ordering::Relaxed) % 4;
        let directory =
            tempfile::Builder::new().prefix("pf-user-").tempdir().expect("a temporary directory");
        let user = Self { directory, uid: FIRST_UID + number };
        let top = user.directory.path();
        fs::set_permissions(top, PermissionsExt::from_mode(0o755)).expect("our directory");
        for name in ["home", "bin"] {
            fs::create_dir(top.join(name)).expect("a directory");
        }
        fs::set_permissions(user.home(), PermissionsExt::from_mode(0o700)).expect("its home");
        user.give(&user.home());
        for name in PROGRAMS {
            let (from, to) = (bin(name), top.join("bin").join(name));
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).expect("a copy of a program");
            }
        }
        let (uid, home) = (user.uid, user.home());
        let line = format!("{}:x:{uid}:{uid}::{}:/bin/sh\n", user.name(), home.display());
        let ids = format!("{}:{}:{SUB_IDS}\n", user.name(), user.sub_ids());
        for (file, more) in [("passwd", line), ("subuid", ids.clone()), ("subgid", ids)] {
            let text = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            fs::write(top.join(file), text + &more).expect("a file of ours");
        }
        user
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("pf-{}", self.uid)
    }

    /// Its user and group id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The first of its sub-ids: root inside its workspaces.
    pub fn sub_ids(&self) -> u32 {
        FIRST_SUB_ID + (self.uid - FIRST_UID) * SUB_IDS
    }

    /// Its home directory, 0700.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Makes a file its own.
    ///
    /// # Panics
    /// When the test is not root.
    pub fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.uid)).expect("the test runs as root");
    }

    /// A command that runs as this user, in its home and with a clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        const SCRIPT: &str = "top=$1; uid=$2; shift 2\n\
            for file in passwd subuid subgid; do\n\
            [ -e /etc/$file ] || : > /etc/$file\n\
            mount --bind \"$top/$file\" /etc/$file || exit 125\n\
            done\n\
            exec setpriv --reuid \"$uid\" --regid \"$uid\" --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", SCRIPT, "sh"])
            .arg(self.directory.path())
            .arg(self.uid.to_string())
            .arg(program)
            .current_dir(self.home())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.home())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// The `pinfold` that it runs.
    pub fn program(&self) -> PathBuf {
        self.directory.path().join("bin/pinfold")
    }

    /// Runs `pinfold` with these words; a server is started on demand, as for anybody.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn pinfold<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        self.run(self.command(self.program()).args(words))
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Output {
        command.output().expect("unshare and setpriv are part of util-linux").into()
    }

    /// Processes under its own id, and under its sub-ids.
    pub fn processes(&self) -> (Vec<i32>, Vec<i32>) {
        let (mut own, mut inside) = (Vec::new(), Vec::new());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match real_uid(pid) {
                Some(uid) if uid == self.uid => own.push(pid),
                Some(uid) if (self.sub_ids()..self.sub_ids() + SUB_IDS).contains(&uid) => {
                    inside.push(pid);
                }
                _ => {}
            }
        }
        (own, inside)
    }

    /// The process of the server of the default home, while it runs.
    pub fn server(&self) -> Option<i32> {
        let lock = self.home().join(".local/share/pinfold/server.lock");
        let text = fs::read_to_string(lock).ok()?;
        let pid = text.split_whitespace().next()?.parse().ok()?;
        (real_uid(pid) == Some(self.uid)).then_some(pid)
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let deadline = Instant::now() + GONE;
        loop {
            let (own, inside) = self.processes();
            if own.is_empty() && inside.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in own.into_iter().chain(inside).filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The directory removes itself.
    }
}

/// Of a process that has not ended.
fn real_uid(pid: i32) -> Option<u32> {
    let status = proc_text(pid, "status")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    if field("State:")?.trim_start().starts_with(['Z', 'X']) {
        return None;
    }
    field("Uid:")?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_to_its_own_commands_only_and_leaves_nothing() {
        let user = User::new();
        let said = user.run(user.command("id").arg("-un")).ok();
        assert_eq!(said.trim(), user.name());
        assert!(!fs::read_to_string("/etc/passwd").unwrap_or_default().contains(&user.name()));
        let mut left = user.command("sleep").arg("600").spawn().expect("a process");
        let pid = i32::try_from(left.id()).expect("a pid");
        crate::until("its process", GONE, || user.processes().0.contains(&pid).then_some(()));
        let top = user.directory.path().to_owned();
        drop(user);
        assert!(left.wait().expect("our child").code().is_none(), "it was killed");
        assert!(!top.exists());
    }
}
