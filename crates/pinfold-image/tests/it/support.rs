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

/// A tar in memory.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &str, link: &str, data: &[u8]) -> Self {
        assert!(name.len() <= 100 && link.len() <= 100);
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000755\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000000001\0");
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.entry(b'0', name, "", data.as_bytes())
    }

    pub(crate) fn bytes(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, "", data)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name, to, b"")
    }

    pub(crate) fn hard(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name, to, b"")
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
