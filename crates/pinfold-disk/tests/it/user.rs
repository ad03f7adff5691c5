//! As an ordinary user with sub-ids: the test runs itself again as one.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use pinfold_disk::{DiskKind, DiskLimits, Pool, PoolMethod};
use pinfold_types::{ErrorCode, Mode, config::PoolConfig, limits::LimitKind};

use crate::support::{eventually, private_mounts, shown, tool};

const UID: u32 = 54_321;
const FIRST_SUB_ID: u32 = 7_000_000;
const HOME: &str = "PINFOLD_DISK_TEST_HOME";

#[test]
fn disks_belong_to_sub_ids() {
    if let Some(home) = std::env::var_os(HOME) {
        return as_the_user(Path::new(&home));
    }
    private_mounts();
    tool("newuidmap", "uidmap");
    tool("unshare", "util-linux");
    let root = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    // A user with sub-ids, known in this mount namespace only.
    let sub_ids = format!("somebody:{FIRST_SUB_ID}:65536\n");
    let passwd = format!("root:x:0:0::/:/bin/sh\nsomebody:x:{UID}:{UID}::/:/bin/sh\n");
    for (file, text) in [("passwd", &passwd), ("subuid", &sub_ids), ("subgid", &sub_ids)] {
        let path = root.path().join(file);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("chmod");
        rustix::mount::mount_bind(&path, format!("/etc/{file}")).expect("bind");
    }
    let home = root.path().join("home");
    std::fs::create_dir(&home).expect("a home");
    std::os::unix::fs::chown(&home, Some(UID), Some(UID)).expect("chown");
    // The user may not be able to reach the build directory.
    let program = root.path().join("it");
    std::fs::copy(std::env::current_exe().expect("this"), &program).expect("copy");
    let output = Command::new(&program)
        .args(["--exact", "user::disks_belong_to_sub_ids", "--nocapture"])
        .env(HOME, &home)
        .current_dir("/")
        .uid(UID)
        .gid(UID)
        .output()
        .expect("runs again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn as_the_user(home: &Path) {
    assert_eq!(rustix::process::geteuid().as_raw(), UID);
    let config = PoolConfig { min_free_bytes: 0, ..Default::default() };
    let pool = Pool::open(&config, home, Mode::User).expect("opens");
    assert_ne!(pool.method(), PoolMethod::Btrfs);
    let limited = DiskLimits { bytes: Some(64 << 20), inodes: None };
    let refused = pool.create("ws_1", &limited, 1).expect_err("no limits here");
    assert_eq!(refused.code, ErrorCode::CannotEnforce);
    assert!(pool.enforceable(LimitKind::Disk).expect_err("why").contains("root"));

    let none = DiskLimits::default();
    let disk = pool.create("ws_1", &none, 2).expect("create");
    for slot in ["upper/0", "work/0", "upper/1", "work/1"] {
        let meta = std::fs::metadata(disk.path.join(slot)).expect("the slot");
        assert_eq!((meta.uid(), meta.gid()), (FIRST_SUB_ID, FIRST_SUB_ID), "{slot}");
    }
    // As the workspace's root would: a file of another id, in a directory closed to us.
    let inside = |script: &str| {
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(format!("--map-users={FIRST_SUB_ID},1,65536"))
            .arg(format!("--map-groups={FIRST_SUB_ID},1,65536"))
            .args(["sh", "-c", script])
            .current_dir(&disk.path)
            .status()
            .expect("unshare");
        assert!(status.success(), "{script}");
    };
    inside(
        "mkdir upper/0/closed && echo secret > upper/0/closed/file && ln -s /etc upper/0/link && \
         chown -R 1001:1001 upper/0/closed && chmod 0700 upper/0/closed",
    );
    assert!(std::fs::read_dir(disk.path.join("upper/0/closed")).is_err(), "it is not ours");

    let made = pool.snapshot("ws_1", "snap_1", pinfold_disk::Mounted::Still).expect("snapshot");
    assert!(["copy", "reflink"].contains(&made.method.as_str()));
    let clone = pool.clone_to("snap_1", "ws_2", &none, 3).expect("clone");
    let meta = std::fs::metadata(shown(&clone, "0/closed").expect("copied")).expect("stat");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (FIRST_SUB_ID + 1000, 0o700));
    assert_eq!(std::fs::metadata(clone.path.join("upper/2")).expect("made").uid(), FIRST_SUB_ID);
    assert!(shown(&clone, "0/link").expect("copied").is_symlink());
    let usage = pool.usage("ws_2").expect("usage");
    assert!(usage.inodes.expect("counted") >= 12 && usage.referenced_bytes > 0, "{usage:?}");

    inside("echo changed > upper/0/new");
    pool.replace("ws_1", "snap_1").expect("restore");
    assert!(!disk.path.join("upper/0/new").exists());

    for id in ["ws_1", "ws_2", "snap_1"] {
        pool.remove(id).expect("remove");
    }
    eventually("the trash is empty", || {
        pool.list().expect("list").iter().all(|entry| entry.kind != DiskKind::Partial)
    });
    assert!(Path::new("/etc/passwd").exists());
    drop(pool);

    // Without sub-ids nothing can be kept apart: refused with the command that mends it.
    let plain = Pool::findings(&config, home, Mode::User);
    assert!(plain.iter().any(|finding| finding.check == "method"), "{plain:#?}");
}
