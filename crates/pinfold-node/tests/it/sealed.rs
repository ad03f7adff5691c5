//! Snapshots and forks of stopped workspaces where disks are directories: nothing is copied, and
//! what is shared is gone with the last that stands on it.

use pinfold_types::{
    config::PoolKind,
    snapshot::CreateSnapshot,
    workspace::{ForkOutcome, ForkWorkspace},
};

use crate::house::{House, create, sh, until};

fn plain() -> House {
    let mut house = House::new();
    house.config.pool.kind = PoolKind::Plain;
    house
}

fn child(name: &str) -> ForkWorkspace {
    ForkWorkspace { name: Some(name.parse().expect("a name")), ..Default::default() }
}

fn layers(house: &House) -> usize {
    std::fs::read_dir(house.path().join("pool/layers")).expect("a shelf").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_workspace_is_sealed_and_its_children_see_their_own_changes() {
    let house = plain();
    let (node, _) = house.open().await;
    create(&node, "w").await;
    let fill = "mkdir -p /srv/d/deep && echo one > /srv/f && echo two > /srv/d/deep/g && \
                ln /srv/f /srv/hard && rm -rf /usr/share/doc && chmod 711 / && chown 7:8 /srv/d";
    assert_eq!(sh(&node, "w", fill).await.0.exit_code, Some(0));
    node.stop("w").await.expect("stopped");
    let taken = node.snapshot("w", CreateSnapshot::default()).await.expect("taken");
    assert_eq!(taken.method, "sealed layer");
    assert_eq!(layers(&house), 1);
    let again = node.snapshot("w", CreateSnapshot::default()).await.expect("taken");
    assert_eq!((again.method.as_str(), layers(&house)), ("sealed layer", 1), "nothing was new");

    // The workspace goes on, above what was sealed.
    node.start("w").await.expect("started");
    let look = "cat /srv/f /srv/hard /srv/d/deep/g; stat -c %a /; stat -c %u:%g /srv/d; \
                ls -d /usr/share/doc 2>&1 | grep -c such";
    let whole = "one\none\ntwo\n711\n7:8\n1\n";
    assert_eq!(sh(&node, "w", look).await.1, whole);
    sh(&node, "w", "echo changed > /srv/f; rm -r /srv/d; mkdir /srv/d; echo new > /srv/d/n").await;
    assert_eq!(sh(&node, "w", "cat /srv/f; ls /srv/d").await.1, "changed\nn\n");

    // A child of the snapshot deletes a file of the sealed layer: nobody else sees it.
    node.fork(&taken.id.to_string(), child("a")).await.expect("forked");
    assert_eq!(sh(&node, "a", look).await.1, whole);
    sh(&node, "a", "rm /srv/f; rm -r /srv/d; echo own > /srv/own").await;
    assert_eq!(sh(&node, "a", "ls /srv").await.1, "hard\nown\n");
    node.fork(&taken.id.to_string(), child("b")).await.expect("forked");
    assert_eq!(sh(&node, "b", look).await.1, whole);

    // Straight from a workspace that is stopped, two generations.
    node.stop("a").await.expect("stopped");
    let outcomes = node.fork("a", child("c")).await.expect("forked");
    assert!(matches!(outcomes[..], [ForkOutcome::Workspace(_)]), "{outcomes:?}");
    assert_eq!(sh(&node, "c", "ls /srv; cat /srv/own").await.1, "hard\nown\nown\n");
    sh(&node, "c", "mkdir /srv/d; echo again > /srv/f").await;
    assert_eq!(sh(&node, "c", "ls /srv /srv/d").await.1, "/srv:\nd\nf\nhard\nown\n\n/srv/d:\n");
    node.start("a").await.expect("started");
    assert_eq!(sh(&node, "a", "ls /srv").await.1, "hard\nown\n");

    // Of a running one the slots alone are copied, and the copy is sealed.
    let live = node.snapshot("w", CreateSnapshot::default()).await.expect("taken");
    assert_eq!(live.method, "copy");
    sh(&node, "w", "rm -rf /srv/*").await;
    node.restore("w", &live.id.to_string()).await.expect("restored");
    assert_eq!(sh(&node, "w", "cat /srv/f /srv/hard; ls /srv/d").await.1, "changed\none\nn\n");
    node.restore("w", &taken.id.to_string()).await.expect("restored");
    assert_eq!(sh(&node, "w", look).await.1, whole);

    // Parents first, then the snapshots: children keep all, and with the last all is gone.
    node.destroy("w").await.expect("destroyed");
    node.destroy("a").await.expect("destroyed");
    for snapshot in [taken.id, again.id, live.id] {
        node.remove_snapshot(&snapshot.to_string()).await.expect("removed");
    }
    assert_eq!(sh(&node, "b", look).await.1, whole);
    assert_eq!(sh(&node, "c", "cat /srv/own /srv/hard /srv/f").await.1, "own\none\nagain\n");
    until("the layers that nobody names to be gone", || layers(&house) == 2).await;
    node.destroy("c").await.expect("destroyed");
    node.stop("b").await.expect("stopped");
    node.start("b").await.expect("started");
    assert_eq!(sh(&node, "b", look).await.1, whole);
    node.destroy("b").await.expect("destroyed");
    until("every layer to be gone", || layers(&house) == 0).await;
}
