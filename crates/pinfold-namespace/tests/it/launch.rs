//! Launches from end to end, and those that must fail.

use std::{fs, path::PathBuf};

use pinfold_namespace::{Launcher, open_pidfd, process_matches};
use pinfold_types::{ErrorCode, RootMount};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Ground, launcher_options, until, wait_gone};

#[tokio::test]
async fn a_workspace_starts_answers_and_ends() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let workspace = Ground::new().start(&launcher).await;
    let launched = &workspace.launched;
    assert_eq!(workspace.output("id -u"), "0");
    assert_eq!(workspace.ask("@config"), "{\"hello\":1}");
    assert!(process_matches(launched.pid, launched.start_time));
    assert!(!process_matches(launched.pid, launched.start_time + 1));
    assert!(open_pidfd(launched.pid, launched.start_time).is_some());
    assert_eq!(launched.walls.namespaces.len(), 8);
    assert!(launched.walls.seccomp && launched.walls.uid_base == workspace.spec.ids.base);
    assert!(!launched.trace.is_empty());
    // The end of PID 1 ends everything inside, and nothing of it stays mounted on the host.
    workspace.output("setsid sh -c 'sleep 1000' >/dev/null 2>&1 &");
    rustix::process::pidfd_send_signal(&launched.pidfd, Signal::KILL).unwrap();
    wait_gone(launched);
    until("its processes' end", || !process_matches(launched.pid, launched.start_time));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(workspace.directory.path().to_str().unwrap()));
}

#[tokio::test]
async fn the_disk_outlives_a_boot_and_run_does_not() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let ground = Ground::new();
    let spec = ground.spec.clone();
    let first = ground.start(&launcher).await;
    first.output("echo kept > /root/kept; echo kept > /tmp/kept; echo lost > /run/lost; rm /etc/hosts; ln -s /nowhere /etc/hosts");
    rustix::process::pidfd_send_signal(&first.launched.pidfd, Signal::KILL).unwrap();
    wait_gone(&first.launched);
    let again = pinfold_namespace::LaunchSpec { hostname: "renamed".into(), boot: 2, ..spec };
    let launched = launcher.launch(again).await.expect("a second boot");
    assert_ne!(launched.pid, first.launched.pid);
    assert_eq!(first.output("cat /root/kept /tmp/kept"), "kept\nkept");
    assert_eq!(first.output("hostname; cat /etc/hostname"), "renamed\nrenamed");
    assert!(!first.run("cat /run/lost").1);
    // A link the workspace made is its own business and is not written through.
    assert_eq!(first.output("readlink /etc/hosts"), "/nowhere");
    rustix::process::pidfd_send_signal(&launched.pidfd, Signal::KILL).unwrap();
    wait_gone(&launched);
}

#[tokio::test]
async fn a_dead_launcher_is_replaced_and_takes_no_workspace_with_it() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let first = Ground::new().start(&launcher).await;
    let helper = launcher.pid().expect("runs");
    kill_process(Pid::from_raw(helper).unwrap(), Signal::KILL).unwrap();
    let second = Ground::new().start(&launcher).await;
    assert_ne!(launcher.pid(), Some(helper));
    assert_eq!(first.output("echo here"), "here");
    assert_eq!(second.output("echo here"), "here");
    launcher.shutdown().await;
    assert_eq!(second.output("echo still"), "still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_launches_at_once() {
    let launcher = std::sync::Arc::new(Launcher::start(launcher_options()).await.expect("one"));
    let tasks: Vec<_> = (0..20)
        .map(|number: u32| {
            let launcher = launcher.clone();
            tokio::spawn(async move {
                let mut ground = Ground::new();
                ground.spec.hostname = format!("host-{number}");
                let workspace = ground.start(&launcher).await;
                assert_eq!(workspace.output("hostname"), format!("host-{number}"));
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a launch");
    }
}

#[tokio::test]
async fn a_large_configuration_arrives_whole() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    ground.spec.guest_config = vec![b'x'; 1 << 20];
    let workspace = ground.start(&launcher).await;
    let got = tokio::task::spawn_blocking(move || workspace.ask("@config").len()).await.unwrap();
    assert_eq!(got, 1 << 20);
}

#[tokio::test]
async fn a_socket_path_may_be_long_and_a_stale_socket_is_replaced() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    let deep = ground.directory.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    ground.spec.socket = deep.join("guest.sock");
    fs::write(&ground.spec.socket, "left over").unwrap();
    let workspace = ground.start(&launcher).await;
    let near = workspace.directory.path().join("near");
    std::os::unix::fs::symlink(&deep, &near).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(near.join("guest.sock")).is_ok());
}

#[tokio::test]
async fn a_read_only_view_cannot_be_written() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    ground.spec.mounts[1].writable = false;
    let workspace = ground.start(&launcher).await;
    let (said, fine) = workspace.run("touch /usr/x");
    assert!(!fine && said.contains("Read-only file system"), "{said}");
    workspace.output("touch /root/x");
}

#[tokio::test]
async fn several_layers_are_stacked_topmost_first() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    for number in 0..40 {
        let layer = ground.directory.path().join(format!("layer-{number}"));
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        fs::write(layer.join(format!("layers/{number}")), "").unwrap();
        ground.spec.mounts[0].lowers.insert(0, layer);
    }
    let workspace = ground.start(&launcher).await;
    assert_eq!(workspace.output("cat /top; ls /layers | wc -l"), "3940");
}

/// A spec with one thing wrong, and what the refusal must name.
async fn refused(change: impl FnOnce(&mut Ground), code: ErrorCode, words: &[&str]) {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let mut ground = Ground::new();
    change(&mut ground);
    let (_, error) = ground.try_start(&launcher).await.err().expect("a refusal");
    assert_eq!(error.code, code, "{error:?}");
    for word in words {
        assert!(error.message.contains(word), "{error:?} lacks {word}");
    }
}

#[tokio::test]
async fn failures_name_their_step() {
    use ErrorCode::CannotEnforce;
    refused(
        |ground| ground.spec.mounts[0].lowers[0] = PathBuf::from("/nonexistent/layer"),
        CannotEnforce,
        &["opening the file tree", "/nonexistent/layer", "No such file"],
    )
    .await;
    refused(
        |ground| ground.spec.disk = PathBuf::from("/proc"),
        CannotEnforce,
        &["mapping the owners", "/proc"],
    )
    .await;
    refused(
        |ground| fs::remove_dir_all(ground.spec.disk.join("work/1")).unwrap(),
        CannotEnforce,
        &["mounting the overlay on /usr"],
    )
    .await;
    refused(|ground| ground.spec.ids.base = 0, CannotEnforce, &["mapping the workspace's ids"])
        .await;
    refused(
        |ground| ground.spec.guest = PathBuf::from("/nonexistent/guest"),
        CannotEnforce,
        &["preparing the guest", "/nonexistent/guest"],
    )
    .await;
    refused(
        |ground| ground.spec.guest = PathBuf::from("/etc/passwd"),
        CannotEnforce,
        &["starting the guest"],
    )
    .await;
    refused(
        |ground| ground.spec.socket = PathBuf::from("/nonexistent/guest.sock"),
        CannotEnforce,
        &["binding the guest's socket"],
    )
    .await;
    refused(
        |ground| ground.spec.open_files = Some(1 << 40),
        CannotEnforce,
        &["open files", "hard limit"],
    )
    .await;
    refused(
        |ground| {
            let image = ground.directory.path().join("image");
            fs::remove_dir(image.join("proc")).unwrap();
            std::os::unix::fs::symlink("tmp", image.join("proc")).unwrap();
        },
        CannotEnforce,
        &["mount point /proc", "no directory"],
    )
    .await;
    refused(
        |ground| {
            ground.spec.mounts.push(RootMount {
                target: "/etc/../../escape".into(),
                lowers: vec![],
                writable: false,
                idmapped: true,
            });
        },
        ErrorCode::Internal,
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_launcher_that_is_not_there_is_named() {
    let mut options = launcher_options();
    options.binary = PathBuf::from("/nonexistent/pinfold-launcher");
    let error = Launcher::start(options).await.expect_err("no such program");
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("/nonexistent/pinfold-launcher"));
}
