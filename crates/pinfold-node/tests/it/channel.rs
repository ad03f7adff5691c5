//! A channel that ends under a living guest is dialled again, and nobody has to know.

use pinfold_node::{ExecEvent, LocalNode, guest::Guest};
use pinfold_types::exec::ExecSpec;

use crate::house::{House, create, sh};

/// Takes the guest's one channel away from the node, as a second server would.
async fn usurp(house: &House, id: pinfold_types::WorkspaceId) -> Guest {
    let store = house.present();
    let row = store.workspace(id).await.expect("read").expect("a row");
    let socket = house.path().join("run").join(id.to_string()).join("guest.sock");
    let secret = row.secret.expect("a live boot has one");
    Guest::connect(&socket, &id, row.boot, &secret).await.expect("the secret is right")
}

async fn lines(node: &LocalNode, file: &str) -> usize {
    sh(node, "box", &format!("cat {file}")).await.1.lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_channel_interrupts_no_output_and_no_question() {
    let house = House::new();
    let (node, _) = house.open().await;
    let id = create(&node, "box").await.id;
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; [ $((i % 100)) = 50 ] && \
                  while ! [ -e /root/go$i ]; do sleep 0.01; done; done; exit 7";
    let mut stream =
        node.exec("box", ExecSpec::argv(["/bin/sh", "-c", script])).await.expect("exec");
    let (mut text, mut lost) = (String::new(), 0);
    let result = loop {
        match stream.next().await.expect("an end") {
            ExecEvent::Stdout(bytes) => text.push_str(std::str::from_utf8(&bytes).expect("digits")),
            ExecEvent::Exited(result) => break result,
            other => panic!("{other:?}"),
        }
        // It waits in the middle of each hundred: take the channel away there, then ask over it.
        let middle = 50 + 100 * lost;
        if text.lines().count() == middle && text.ends_with('\n') {
            lost += 1;
            drop(usurp(&house, id).await);
            node.stat_file("box", "/root").await.expect("answered over a new channel");
            sh(&node, "box", &format!("touch /root/go{middle}")).await;
        }
    };
    assert_eq!((result.exit_code, lost), (Some(7), 3));
    let counted: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(counted, (1..=300).collect::<Vec<_>>(), "nothing twice, nothing missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_started_once_however_often_the_channel_is_lost() {
    const COMMANDS: usize = 40;
    let house = House::new();
    let (node, _) = house.open().await;
    let id = create(&node, "box").await.id;
    let disturb = async {
        loop {
            drop(usurp(&house, id).await);
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    };
    let work = async {
        let mut started = 0;
        for _ in 0..COMMANDS {
            let spec = ExecSpec::argv(["/bin/sh", "-c", "echo ran >> /root/ran"]);
            // Two losses under one start are more than is mended: then it is an error, and not
            // known whether it ran, but never that it ran twice.
            let Ok(stream) = node.exec("box", spec).await else { continue };
            started += 1;
            let _ = stream.collect(100).await;
        }
        started
    };
    let started = tokio::select! {
        started = work => started,
        () = disturb => unreachable!("it never ends"),
    };
    let ran = lines(&node, "/root/ran").await;
    assert!(started > COMMANDS / 2, "only {started} of {COMMANDS} were started");
    assert!((started..=COMMANDS).contains(&ran), "{ran} ran, {started} were acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_asks_a_boot_that_was_adopted_paused_shares_one_channel() {
    let house = House::new();
    let (node, _) = house.open().await;
    create(&node, "box").await;
    node.pause("box").await.expect("paused");
    house.crash(node).await;
    let (node, _) = house.open().await;
    node.resume("box").await.expect("resumed");
    let asked = (0..20).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { sh(&node, "box", "echo on").await.1 })
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.expect("no panic"), "on\n");
    }
}
