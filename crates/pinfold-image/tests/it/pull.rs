//! Pulls from a registry that behaves, and from one that does not.

use std::{collections::BTreeMap, fs, path::Path};

use pinfold_egress::{Client, EgressConfig};
use pinfold_image::ImageStore;
use pinfold_types::{
    config::{ImagesConfig, RegistryConfig},
    image::ImageProgress,
};
use tokio::sync::mpsc;

use crate::{
    fake::{Registry, Tricks, digest, gzip},
    support::{Tar, mode},
};

fn layers() -> Vec<Vec<u8>> {
    // Bytes that do not shrink, so that half of a blob is half of it.
    let noise: String = (0..40_000u32)
        .map(|n| {
            char::from(
                b' ' + u8::try_from((n.wrapping_mul(2_654_435_761) >> 20) % 90).expect("small"),
            )
        })
        .collect();
    vec![
        Tar::default().dir("bin").file("bin/run", &noise).file("etc/old", "old").end(),
        Tar::default().file("etc/.wh.old", "").file("etc/new", "new").hard("copy", "bin/run").end(),
    ]
}

fn store(dir: &Path, registry: &Registry, blob_host: bool) -> ImageStore {
    let open = RegistryConfig { allow_private: true, plain_http: true, ..Default::default() };
    let mut registries = BTreeMap::from([(registry.host(), open.clone())]);
    if blob_host {
        registries.insert(registry.blob_host(), open);
    }
    let config = ImagesConfig { registries, ..ImagesConfig::default() };
    let egress = Client::new(EgressConfig::from_images(&config));
    ImageStore::open(&dir.join("images"), mode(), &config, egress).expect("opens")
}

async fn pull(
    store: &ImageStore,
    registry: &Registry,
) -> pinfold_types::Result<pinfold_types::image::ImageInfo> {
    let (progress, mut events) = mpsc::channel(1024);
    let reference = format!("{}/team/app:1", registry.host());
    let result = store.pull(&reference, None, progress).await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    if result.is_ok() {
        assert!(seen.iter().any(|event| matches!(event, ImageProgress::Step { .. })));
    }
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_serving_the_same_image_gives_the_same_image() {
    let tars = layers();
    for tricks in [
        Tricks::default(),
        Tricks { token: true, redirect: true, ..Tricks::default() },
        Tricks { busy_once: true, ..Tricks::default() },
        Tricks { truncate_once: true, ..Tricks::default() },
        Tricks { truncate_once: true, no_ranges: true, ..Tricks::default() },
    ] {
        let registry = Registry::start(&tars, tricks).await;
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), &registry, true);
        let info = pull(&store, &registry).await.unwrap_or_else(|err| panic!("{tricks:?}: {err}"));
        assert_eq!(info.layers.len(), 2);
        assert_eq!(info.defaults.command, ["/bin/run", "arg"]);
        assert_eq!(info.defaults.user.as_deref(), Some("app"));
        assert_eq!(info.defaults.env["A"], "1");
        let mounts = store.root_mounts(&info.id).expect("mounts");
        let top = &mounts[0].lowers[0];
        assert_eq!(fs::read_to_string(top.join("etc/new")).expect("there"), "new");
        assert_eq!(
            fs::read(top.join("copy")).expect("copied up"),
            fs::read(mounts[0].lowers[1].join("bin/run")).expect("there")
        );
        let blobs = dir.path().join("images/blobs");
        assert_eq!(fs::read_dir(blobs).expect("there").count(), 0, "no blob is kept");
        let log = registry.log();
        if tricks.truncate_once && !tricks.no_ranges {
            assert!(log.iter().any(|line| line.contains("range=bytes=")), "{log:#?}");
        }
        if tricks.token {
            assert!(log.iter().any(|line| line.contains("Bearer t0ken")));
            let leaked = log.iter().any(|l| l.starts_with("blob-host") && l.contains("t0ken"));
            assert!(!leaked, "the token went to another host: {log:#?}");
        }
        // Again: nothing but the small documents is fetched.
        let before = registry.log().len();
        let again = pull(&store, &registry).await.expect("again");
        assert_eq!(again.layers, info.layers);
        let fetched = &registry.log()[before..];
        for tar in &tars {
            let blob = digest(&gzip(tar));
            assert!(!fetched.iter().any(|line| line.contains(&blob)), "{fetched:#?}");
        }
        assert_eq!(store.list().iter().filter(|i| !i.names.is_empty()).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_or_leads_away_is_refused() {
    let tars = layers();
    for (tricks, code) in [
        (Tricks { wrong_blob: true, ..Tricks::default() }, "bad_image"),
        (Tricks { redirect_away: true, ..Tricks::default() }, "egress_denied"),
        // The other port is not allowed here.
        (Tricks { redirect: true, ..Tricks::default() }, "egress_denied"),
    ] {
        let registry = Registry::start(&tars, tricks).await;
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), &registry, false);
        let refused = pull(&store, &registry).await.expect_err("refused");
        assert_eq!(refused.code.as_str(), code, "{tricks:?}: {refused}");
        assert!(store.list().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("images/layers")).expect("there").count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("images/partial")).expect("there").count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_download_once() {
    let registry = Registry::start(&layers(), Tricks::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path(), &registry, true);
    let (first, second) = tokio::join!(pull(&store, &registry), pull(&store, &registry));
    assert_eq!(first.expect("first").layers, second.expect("second").layers);
    let log = registry.log();
    let layer_requests = log.iter().filter(|line| line.contains("/blobs/")).count();
    // Two configurations, and each of two layers once; the layer with a link into the one below
    // may come twice, since where it stands is part of what it is.
    assert!(layer_requests <= 2 + 3, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_that_nobody_named_is_not_asked() {
    let registry = Registry::start(&layers(), Tricks::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = ImagesConfig::default();
    let egress = Client::new(EgressConfig::from_images(&config));
    let store =
        ImageStore::open(&dir.path().join("images"), mode(), &config, egress).expect("opens");
    let refused = pull(&store, &registry).await.expect_err("refused");
    assert_eq!(refused.code.as_str(), "egress_denied");
    assert!(refused.hint.expect("a hint").contains("[images.registries]"));
    assert!(registry.log().is_empty());
}
