//! Each wall can be left out for the escape suite, and its absence shows.

use pinfold_namespace::{Launcher, Weakness};

use crate::harness::{Ground, Workspace, launcher_options};

async fn without(walls: &[Weakness]) -> (Launcher, Workspace) {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    ground.extras.weaken = walls.to_vec();
    let workspace = ground.start(&launcher).await;
    (launcher, workspace)
}

#[tokio::test]
async fn what_is_left_out_is_missing() {
    use Weakness as W;
    let cases: [(&[W], &str); 10] = [
        (&[W::Seccomp], "grep -E '^Seccomp:.0' /proc/self/status"),
        (&[W::Capabilities, W::Seccomp, W::Landlock], "mkdir -p /mnt && mount -t tmpfs none /mnt"),
        (&[W::NoNewPrivileges, W::Capabilities], "grep -E '^NoNewPrivs:.0' /proc/self/status"),
        (&[W::Landlock], "mknod /tmp/node c 1 3 2>&1 | grep 'Operation not permitted'"),
        (&[W::Masks], "head -c 100 /proc/interrupts | grep CPU"),
        (&[W::HostRoot], "test -e /host/etc/passwd"),
        (&[W::HostRoot, W::Devices], "ls /dev/vda"),
        (&[W::HostRoot, W::Descriptor], "ls /host/etc"),
        (&[W::Network], "tail -n +3 /proc/net/dev"),
        (&[W::Dumpable], "cat /proc/1/environ"),
    ];
    for (walls, line) in cases {
        let (_launcher, workspace) = without(walls).await;
        let (said, fine) = workspace.run(line);
        assert!(fine, "{walls:?} {line}: {said}");
    }
    let (_launcher, workspace) = without(&[W::SystemNames]).await;
    assert_ne!(workspace.output("cat /proc/sys/kernel/hostname"), "walled");
    let (_launcher, workspace) = without(&[W::HostRoot, W::Descriptor]).await;
    assert!(workspace.ask("@fds").contains("9 /"));
}
