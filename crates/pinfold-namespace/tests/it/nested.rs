//! Workspaces that may make namespaces of their own keep every other wall.

use pinfold_namespace::Launcher;

use crate::harness::{Ground, launcher_options};

#[tokio::test]
async fn nested_workspaces_make_containers_and_nothing_more() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    ground.spec.nested = true;
    let workspace = ground.start(&launcher).await;
    assert!(workspace.launched.walls.nested);
    for line in [
        "unshare -Ur id -u | grep '^0$'",
        "unshare -Urm sh -c 'mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /home && touch /home/x'",
        "unshare -Urmpf --mount-proc sh -c 'ls /proc/1/cwd >/dev/null && echo $$ | grep 1'",
        "unshare -Urn sh -c 'grep -c lo: /proc/net/dev'",
    ] {
        workspace.output(line);
    }
    for line in [
        "mount -t tmpfs none /home",
        "umount /dev/.proc",
        "ls /dev/.proc/proc",
        "unshare -Urm umount /dev/.proc",
        "unshare -Urm umount /proc/sys",
        "unshare -Urm sh -c 'mount -o remount,rw,bind /proc/sys && echo 1 > /proc/sys/vm/drop_caches'",
        "unshare -Urm sh -c 'umount -l / && ls /host'",
        "unshare -Urm mknod /tmp/disk b 254 0",
        "unshare -Urmpf --mount-proc sh -c 'echo 1 > /proc/sys/vm/drop_caches'",
        "unshare -Urmpf --mount-proc cat /proc/kcore",
        "unshare -Ur cat /proc/1/environ",
    ] {
        let (said, fine) = workspace.run(line);
        assert!(!fine, "{line}: {said}");
    }
    let refused = workspace.python(
        "import ctypes\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         for nr in (425,321,323,250,298,175,304,435): print(libc.syscall(nr,0,0,0,0,0), ctypes.get_errno())\n\
         print(libc.socket(40,1,0), ctypes.get_errno(), libc.socket(17,3,0), ctypes.get_errno())",
    );
    assert_eq!(refused, "-1 38\n-1 1\n-1 1\n-1 38\n-1 13\n-1 1\n-1 1\n-1 38\n-1 97 -1 1");
}
