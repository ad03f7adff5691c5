//! Imports, sealing, committing, exporting, removing.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

use pinfold_image::{ImageStore, ImportSource};
use pinfold_types::{
    Result,
    image::{ImageDefaults, ImageInfo, ImageSource},
};
use tokio::sync::mpsc;

use crate::{
    fake::{Image, arch, digest, image},
    support::{Tar, open},
};

async fn import(store: &ImageStore, source: ImportSource, name: &str) -> Result<ImageInfo> {
    let (progress, _events) = mpsc::channel(64);
    store.import(source, Some(name.parse().expect("a name")), progress).await
}

fn tars() -> Vec<Vec<u8>> {
    vec![
        Tar::default().dir("bin").file("bin/sh", "#!").file("etc/a", "1").end(),
        Tar::default().file("etc/.wh.a", "").file("etc/b", "2").end(),
    ]
}

/// An OCI layout on disk.
fn layout(dir: &Path, architecture: &str) {
    write_layout(dir, &image(&tars(), architecture));
}

/// An image as an OCI layout on disk.
pub(crate) fn write_layout(dir: &Path, image: &Image) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    for blob in image.blobs.iter().chain([&image.config, &image.manifest]) {
        fs::write(blobs.join(&digest(blob)["sha256:".len()..]), blob).expect("written");
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&image.manifest), "size": image.manifest.len(),
        }],
    });
    fs::write(dir.join("index.json"), index.to_string()).expect("written");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

/// What `docker save` wrote before it wrote layouts.
fn docker_save() -> Vec<u8> {
    let tars = tars();
    let image = image(&tars, arch());
    let config = format!("{}.json", &digest(&image.config)["sha256:".len()..]);
    let manifest = serde_json::json!([{
        "Config": config, "RepoTags": ["x:1"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    Tar::default()
        .bytes(&config, &image.config)
        .bytes("one/layer.tar", &tars[0])
        .bytes("real/layer.tar", &tars[1])
        .link("two/layer.tar", "../real/layer.tar")
        .file("manifest.json", &manifest.to_string())
        .end()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_layers_come_out_of_every_format() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let layout_dir = dir.path().join("layout");
    layout(&layout_dir, arch());
    let first = import(&store, ImportSource::OciLayout(layout_dir), "a").await.expect("a layout");
    let saved = dir.path().join("saved.tar");
    fs::write(&saved, docker_save()).expect("written");
    let second = import(&store, ImportSource::DockerArchive(saved), "b").await.expect("a save");
    assert_eq!(first.layers, second.layers);
    assert_eq!(first.layers, tars().iter().map(|tar| digest(tar)).collect::<Vec<_>>());

    // Out and in again, through our own export, twice the same bytes.
    let mut out = Vec::new();
    store.export(&first.id, &mut out).expect("exports");
    let mut again = Vec::new();
    store.export(&first.id, &mut again).expect("exports");
    assert_eq!(digest(&out), digest(&again));
    let path = dir.path().join("out.tar");
    fs::write(&path, &out).expect("written");
    let other_dir = tempfile::tempdir().expect("a directory");
    let other = open(other_dir.path());
    for source in [ImportSource::OciLayout(path.clone()), ImportSource::DockerArchive(path)] {
        let back = import(&other, source, "c").await.expect("comes back");
        let trees = other.root_mounts(&back.id).expect("mounts").remove(0).lowers;
        assert_eq!(fs::read_to_string(trees[0].join("etc/b")).expect("there"), "2");
        assert_eq!(fs::symlink_metadata(trees[0].join("etc/a")).expect("a whiteout").rdev(), 0);
        assert_eq!(back.defaults.env, first.defaults.env);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_come_from_tars_and_directories() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let plain = Tar::default().dir("bin").file("bin/sh", "#!").file("etc/.wh.x", "a name").end();
    for (file, bytes) in [
        ("plain.tar", plain.clone()),
        ("root.tar.gz", crate::fake::gzip(&plain)),
        ("root.tar.zst", zstd::encode_all(&*plain, 1).expect("packed")),
    ] {
        let path = dir.path().join(file);
        fs::write(&path, bytes).expect("written");
        let info = import(&store, ImportSource::RootfsTar(path), "root").await.expect(file);
        assert_eq!(info.layers, [digest(&plain)], "{file}");
    }
    let saved = dir.path().join("saved.tar");
    fs::write(&saved, docker_save()).expect("written");
    for (path, count) in [(dir.path().join("root.tar.gz"), 1), (saved, 2)] {
        let info = import(&store, ImportSource::Detect(path), "any").await.expect("found out");
        assert_eq!(info.layers.len(), count);
    }
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).expect("made");
    fs::create_dir_all(root.join("proc/1")).expect("made");
    fs::write(root.join("usr/bin/tool"), "x").expect("written");
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).expect("linked");
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).expect("linked");
    let info = import(&store, ImportSource::Directory(root.clone()), "dir").await.expect("a root");
    let tree = &store.root_mounts(&info.id).expect("mounts")[0].lowers[0];
    assert_eq!(fs::metadata(tree.join("usr/bin/same")).expect("there").nlink(), 2);
    assert!(!tree.join("proc").exists());
    let again = import(&store, ImportSource::Directory(root), "dir").await.expect("a root");
    assert_eq!(info.layers, again.layers, "the same bytes for the same tree");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let foreign = dir.path().join("foreign");
    layout(&foreign, "pdp11");
    let lying = dir.path().join("lying");
    layout(&lying, arch());
    let blob = fs::read_dir(lying.join("blobs/sha256"))
        .expect("there")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| fs::read(path).expect("readable").starts_with(&[0x1f, 0x8b]))
        .expect("a layer");
    fs::write(&blob, crate::fake::gzip(&Tar::default().file("etc/evil", "x").end()))
        .expect("written");
    let leading = Tar::default().link("manifest.json", "/etc/passwd").end();
    let xz = [&[0xfd][..], b"7zXZ\0"].concat();
    let no_root = Tar::default().file("readme", "x").end();
    for (source, code) in [
        (ImportSource::OciLayout(foreign), "bad_image"),
        (ImportSource::OciLayout(lying), "bad_image"),
        (ImportSource::DockerArchive(write("leading.tar", &leading)), "bad_image"),
        (ImportSource::RootfsTar(write("noise.tar", &[7; 4096])), "bad_image"),
        (ImportSource::RootfsTar(write("empty.tar", b"")), "bad_image"),
        (ImportSource::RootfsTar(write("root.tar.xz", &xz)), "bad_image"),
        (ImportSource::RootfsTar(write("none.tar", &no_root)), "bad_image"),
        (ImportSource::RootfsTar(dir.path().join("absent")), "not_found"),
        (ImportSource::Directory(dir.path().join("absent")), "bad_image"),
        (
            ImportSource::Debian { suite: "--x".into(), packages: vec![], mirror: None },
            "invalid_argument",
        ),
        (
            ImportSource::Debian {
                suite: "bookworm".into(),
                packages: vec![],
                mirror: Some("http://u:p@mirror.example/".into()),
            },
            "invalid_argument",
        ),
    ] {
        let what = format!("{source:?}");
        let refused = import(&store, source, "x").await.expect_err(&what);
        assert_eq!(refused.code.as_str(), code, "{what}: {refused}");
    }
    assert!(store.list().is_empty());
    store.prune(&HashSet::new(), true).expect("prunes");
    for place in ["layers", "partial"] {
        let left = fs::read_dir(dir.path().join("images").join(place)).expect("there").count();
        assert_eq!(left, 0, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_becomes_a_layer_and_an_image() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let host = store.ensure_host().expect("host");
    let (root, usr) = (dir.path().join("upper0"), dir.path().join("upper1"));
    fs::create_dir_all(root.join("srv/app")).expect("made");
    fs::create_dir_all(root.join("usr/hidden")).expect("made");
    fs::create_dir_all(usr.join("local/bin")).expect("made");
    fs::write(root.join("srv/app/x"), "app").expect("written");
    fs::write(usr.join("local/bin/tool"), "tool").expect("written");
    let whiteout = |path: &Path| {
        let none = rustix::fs::Mode::empty();
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, none, 0).expect("a whiteout");
    };
    whiteout(&root.join("srv/gone"));
    whiteout(&usr.join("bin"));
    xattr::set(root.join("srv/app"), "user.overlay.opaque", b"y").expect("set");
    let targets = ["/".to_owned(), "/usr".to_owned()];
    let uppers = [root, usr];
    let layer = store.seal_layer(&uppers, &targets).expect("sealed");
    assert_eq!(store.seal_layer(&uppers, &targets).expect("again"), layer);
    store.cache_layer("key", &layer).expect("kept");
    assert_eq!(store.cached_layer("key").as_deref(), Some(layer.as_str()));

    let steps = ImageSource::Template { steps_digest: "sha256:0".into() };
    let name = "mine:1".parse().expect("a name");
    let made = store
        .commit(&host.id, std::slice::from_ref(&layer), ImageDefaults::default(), steps, Some(name))
        .expect("committed");
    let mounts = store.root_mounts(&made.id).expect("mounts");
    assert_eq!(mounts.len(), 2);
    let (top, usr) = (&mounts[0].lowers[0], &mounts[1].lowers[0]);
    assert_eq!(fs::read_to_string(top.join("srv/app/x")).expect("there"), "app");
    assert_eq!(fs::read_to_string(usr.join("local/bin/tool")).expect("there"), "tool");
    assert_eq!(fs::symlink_metadata(top.join("srv/gone")).expect("a whiteout").rdev(), 0);
    assert_eq!(fs::symlink_metadata(usr.join("bin")).expect("a whiteout").rdev(), 0);
    assert!(!top.join("usr/hidden").exists(), "what the other mount hides is left out");
    let opaque = xattr::get(top.join("srv/app"), "user.overlay.opaque").expect("read");
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
    assert_eq!(mounts[1].lowers.last().map(std::path::PathBuf::as_path), Some(Path::new("/usr")));

    let refused = store.export(&made.id, &mut Vec::new()).expect_err("stands on host");
    assert_eq!(refused.code.as_str(), "unprocessable");

    // The layers of an image stay while it does; those of nobody go.
    let pruned = store.prune(&HashSet::new(), false).expect("prunes");
    assert!(pruned.images.is_empty() && pruned.layers.is_empty(), "{pruned:?}");
    let removed = store.remove("mine:1").expect("removed");
    assert_eq!(removed.images, [made.id]);
    assert!(removed.layers.is_empty(), "the cache still points to it");
    let pruned = store.prune(&HashSet::from([host.id]), true).expect("prunes");
    assert_eq!(pruned.layers, [layer]);
    assert!(pruned.images.is_empty() && store.cached_layer("key").is_none());
    assert!(store.root_mounts(&host.id).is_ok());
}

#[test]
fn a_crash_leaves_nothing_that_the_next_start_keeps() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let images = dir.path().join("images");
    fs::create_dir_all(images.join("partial/1-2/fs/deep")).expect("made");
    fs::write(images.join("records/img_x.json.new"), "{").expect("written");
    fs::write(images.join("records/odd.json"), "not a record").expect("written");
    let store = open(dir.path());
    assert!(store.list().is_empty());
    assert_eq!(fs::read_dir(images.join("partial")).expect("there").count(), 0);
    assert!(!images.join("records/img_x.json.new").exists());
    let mode = fs::metadata(&images).expect("there").mode() & 0o777;
    assert_eq!(mode, 0o700);
}
