//! What several tests use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pinfold_egress::{Client, EgressConfig};
use pinfold_image::ImageStore;
use pinfold_types::{Mode, config::ImagesConfig};

pub(crate) fn mode() -> Mode {
    if rustix::process::geteuid().is_root() { Mode::Root } else { Mode::User }
}

pub(crate) fn open(dir: &Path) -> ImageStore {
    let egress = Client::new(EgressConfig::default());
    ImageStore::open(&dir.join("images"), mode(), &ImagesConfig::default(), egress)
        .expect("the store opens")
}

/// Every path below a tree, without following links.
pub(crate) fn walk(tree: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![tree.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry"))
        {
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
