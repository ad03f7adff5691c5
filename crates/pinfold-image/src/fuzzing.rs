//! Doors for the fuzz targets: each takes untrusted bytes and must neither panic nor leave its
//! directory.

use std::{fs, path::Path, time::Duration};

use crate::{
    archive::{Archive, Kind},
    oci::{Document, ImageConfig},
    stream,
    unpack::{self, Limits, Options, Whiteouts},
};

/// Unpacks an archive, compressed or not, into `scratch/tree` and checks that nothing appeared
/// beside it. `scratch` is emptied.
///
/// # Panics
///
/// When something did: that is the finding.
pub fn unpack(bytes: &[u8], scratch: &Path) {
    let tree = scratch.join("tree");
    // The first run has nothing to remove.
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(&tree).expect("the scratch directory can be made");
    let options = Options {
        limits: Limits { bytes: 1 << 20, files: 256, time: Duration::from_secs(10) },
        whiteouts: if bytes.len().is_multiple_of(2) { Whiteouts::Oci } else { Whiteouts::None },
        lowers: &[],
        owners: None,
    };
    if let Ok(expanded) = stream::expand(bytes, 4 << 20) {
        // A refusal is as good as a tree.
        let _ = unpack::unpack(expanded.reader, &tree, &options);
    }
    let beside = fs::read_dir(scratch).expect("it is there").count();
    assert_eq!(beside, 1, "something was made beside the tree");
}

/// Reads an archive's entries without making anything.
pub fn entries(bytes: &[u8]) {
    let mut archive = Archive::new(bytes);
    while let Ok(Some(entry)) = archive.next_entry() {
        if entry.kind == Kind::File {
            let mut end = 0;
            let read = archive.data(&entry, |offset, piece| {
                end = offset + piece.len() as u64;
                Ok(())
            });
            assert!(read.is_err() || end <= entry.size, "data lies behind the file's end");
        }
    }
}

/// Reads a manifest or index, and a configuration.
pub fn documents(bytes: &[u8]) {
    if let Ok(document) = Document::parse(bytes) {
        // Whether it fits this machine does not matter here.
        let _ = document.select("amd64");
        let _ = document.into_manifest();
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let defaults = config.defaults();
        assert!(defaults.env.iter().all(|(name, value)| !name.is_empty() && !value.contains('\0')));
    }
}
