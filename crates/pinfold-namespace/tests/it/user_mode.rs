//! The same walls for an ordinary user with sub-ids.
//!
//! As root the test makes such a user in a mount namespace of its own, then runs itself again as
//! that user; there it launches for real, by newuidmap and newgidmap.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use pinfold_namespace::{LaunchSpec, Launcher, LauncherOptions, sub_ids};
use rustix::process::{Signal, pidfd_send_signal};

use crate::harness::{Ground, launcher_options, wait_gone};

const UID: u32 = 48_211;
const BASE: u32 = 1_900_000_000;
const SPEC: &str = "PINFOLD_TEST_USER_SPEC";

fn chown_all(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path(), id);
        }
    }
}

#[test]
fn an_ordinary_user_gets_the_same_walls() {
    if let Ok(spec) = std::env::var(SPEC) {
        let spec = serde_json::from_str(&spec).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(inside(spec));
    }
    let mut ground = Ground::new();
    let top = ground.directory.path().to_owned();
    chown_all(&top.join("image"), BASE);
    chown_all(&top.join("disk"), BASE);
    for (file, line) in [
        ("passwd", format!("root:x:0:0::/:/bin/sh\nwalled:x:{UID}:{UID}::/:/bin/sh\n")),
        ("subuid", format!("walled:{BASE}:65536\n")),
        ("subgid", format!("walled:{BASE}:65536\n")),
    ] {
        fs::write(top.join(file), line).unwrap();
    }
    // Programs in the build tree may lie behind directories that are root's alone.
    let copy = |from: &Path, name: &str| -> PathBuf {
        let to = top.join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let launcher = copy(&launcher_options().binary, "launcher");
    ground.spec.guest = copy(&ground.spec.guest, "guest");
    let own = copy(&std::env::current_exe().unwrap(), "test");
    ground.spec.ids.base = BASE;
    ground.spec.mounts[1].writable = false;
    ground.spec.mounts[1].idmapped = false;
    chown(&top, Some(UID), Some(UID)).unwrap();
    let script = format!(
        "mount --make-rprivate / && for f in passwd subuid subgid; do mount --bind {top}/$f /etc/$f || exit 9; done\n\
         exec setpriv --reuid {UID} --regid {UID} --clear-groups {own} --exact user_mode::an_ordinary_user_gets_the_same_walls --nocapture",
        top = top.display(),
        own = own.display(),
    );
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .env(SPEC, serde_json::to_string(&ground.spec).unwrap())
        .env("PINFOLD_TEST_LAUNCHER", launcher)
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{status}");
}

async fn inside(spec: LaunchSpec) {
    assert_eq!(rustix::process::getuid().as_raw(), UID);
    assert_eq!(sub_ids().expect("sub-ids"), spec.ids);
    let binary = PathBuf::from(std::env::var("PINFOLD_TEST_LAUNCHER").unwrap());
    let launcher = Launcher::start(LauncherOptions { binary, home_tag: "user".into() })
        .await
        .expect("a launcher");
    let launched = launcher.launch(spec.clone()).await.expect("a launch");
    let ask = |line: &str| crate::harness::ask_at(&spec.socket, line);
    assert_eq!(launched.walls.mode, "user");
    for (line, wanted) in [
        ("id -u", "0"),
        ("touch /root/x && stat -c %u /root/x", "0"),
        ("chown 1000 /root/x && stat -c %u /root/x", "1000"),
        ("cat /proc/self/uid_map | tr -s ' '", " 0 1900000000 65536"),
        ("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '", "1 2 "),
        ("unshare -Ur true 2>/dev/null || echo refused", "refused"),
        ("mount -t tmpfs none /home 2>/dev/null || echo refused", "refused"),
        ("touch /usr/x 2>/dev/null || echo refused", "refused"),
        ("cat /proc/1/environ 2>/dev/null || echo refused", "refused"),
        ("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo"),
        ("cat /proc/keys; echo x > /dev/shm/x && cat /dev/shm/x", "x"),
    ] {
        let answer = ask(line);
        let (text, status) = answer.rsplit_once("\nstatus=").expect("a status");
        assert_eq!((text.trim_end_matches('\n'), status), (wanted, "exit status: 0"), "{line}");
    }
    pidfd_send_signal(&launched.pidfd, Signal::KILL).unwrap();
    wait_gone(&launched);
}
