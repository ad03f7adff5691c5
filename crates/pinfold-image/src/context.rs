//! Unpacking the files that a build copies from.

use std::{fs::File, path::Path, time::Duration};

use pinfold_types::{Error, config::ImagesConfig};

use crate::{
    error::{ImageError, Result},
    files, stream,
    unpack::{self, Limits, Options, Whiteouts},
};

/// Longest time for one context.
const CONTEXT_TIME: Duration = Duration::from_hours(1);

/// Unpacks an uploaded tar (plain, gzip, zstd) into the directory `dir`, which is made, confined
/// and bounded as a layer is. Owners are not kept: they mean nothing in a context.
pub fn unpack_context(archive: &Path, dir: &Path, config: &ImagesConfig) -> Result<(), Error> {
    Ok(unpack_inner(archive, dir, config)?)
}

fn unpack_inner(archive: &Path, dir: &Path, config: &ImagesConfig) -> Result<()> {
    let tree = dir.join("tree");
    files::make_dir(dir, 0o700)?;
    files::make_dir(&tree, 0o700)?;
    let input = File::open(archive).map_err(ImageError::io("open", archive))?;
    let limits =
        Limits { bytes: config.max_image_bytes, files: config.max_image_files, time: CONTEXT_TIME };
    let owners = dir.join("owners");
    let options =
        Options { limits, whiteouts: Whiteouts::None, lowers: &[], owners: Some(&owners) };
    let expanded = stream::expand(input, u64::MAX)?;
    unpack::unpack(expanded.reader, &tree, &options)?;
    Ok(())
}
