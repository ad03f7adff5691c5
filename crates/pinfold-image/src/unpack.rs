//! Archives to trees, confined and bounded.
//!
//! Nothing an archive says leaves its tree: names are cleaned on paper, every parent is opened by
//! the kernel beneath the tree's own descriptor without following any link (`openat2(2)`,
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), and objects are made exclusively in that descriptor.
//! An archive that tries anything else is refused whole.
//!
//! Kept: modes with set-id bits (workspaces run under `no_new_privs`, where these are inert),
//! owners, times, hard links, holes, `user.*` attributes and `security.capability`. Left out and
//! reported: device nodes. Left out silently: other extended attributes, and overlayfs' own.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    archive::{Archive, Entry, Kind},
    error::{ImageError, Result},
};

mod lower;
mod names;
pub(crate) mod place;

use place::{Owners, Tree};

/// What one layer may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of files' data.
    pub bytes: u64,
    /// Entries.
    pub files: u64,
    /// For all of it.
    pub time: Duration,
}

/// How whiteouts are written in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// OCI image layers: `.wh.name` and `.wh..wh..opq`.
    Oci,
    /// None: a root filesystem, where such a name is a name.
    None,
}

/// How to unpack.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a> {
    pub limits: Limits,
    pub whiteouts: Whiteouts,
    /// Trees below this layer, topmost first: hard links may point into them.
    pub lowers: &'a [PathBuf],
    /// Whether owners can be set now; otherwise they are written to this file for later.
    pub owners: Option<&'a Path>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub files: u64,
    pub bytes: u64,
    pub skipped: Vec<String>,
    /// Whether files of lower trees were copied in, so that the result depends on them.
    pub adopted: bool,
}

/// Most names kept in a report.
const MAX_REPORTED: usize = 32;

/// Unpacks a plain tar stream into the directory `tree`, and reads the stream to its end.
pub(crate) fn unpack(input: impl Read, tree: &Path, options: &Options<'_>) -> Result<Report> {
    let owners = match options.owners {
        None => Owners::Set,
        Some(path) => Owners::log(path)?,
    };
    let mut place = Tree::open(tree, owners)?;
    let mut archive = Archive::new(input);
    let mut report = Report::default();
    let deadline = Instant::now() + options.limits.time;
    while let Some(entry) = archive.next_entry()? {
        report.files += 1;
        if report.files > options.limits.files {
            return Err(limit(&format!("has more than {} files", options.limits.files)));
        }
        if Instant::now() > deadline {
            return Err(limit(&format!("took longer than {} s", options.limits.time.as_secs())));
        }
        // Holes cost nothing on disk, but a reader sees them: both count against the same limit.
        if matches!(entry.kind, Kind::File) {
            let data = entry.stored().max(entry.size / 64);
            report.bytes = report.bytes.saturating_add(data);
            if report.bytes > options.limits.bytes {
                return Err(limit(&format!("holds more than {} bytes", options.limits.bytes)));
            }
        }
        put(&mut archive, &mut place, &entry, options, &mut report)?;
    }
    report.adopted = place.adopted;
    place.finish()?;
    archive.drain()?;
    Ok(report)
}

fn limit(what: &str) -> ImageError {
    ImageError::Limit(format!(
        "the layer {what}; the limits are [images] max_image_bytes and max_image_files"
    ))
}

fn put<R: Read>(
    archive: &mut Archive<R>,
    place: &mut Tree,
    entry: &Entry,
    options: &Options<'_>,
    report: &mut Report,
) -> Result<()> {
    let path = names::clean(&entry.path)?;
    let Some((name, parents)) = path.split_last() else {
        // The root itself: only its mode and owner matter.
        if entry.kind != Kind::Directory {
            return Err(ImageError::Bad("the archive puts something in place of its root".into()));
        }
        place.root(entry);
        return Ok(());
    };
    if options.whiteouts == Whiteouts::Oci {
        if path[..path.len() - 1].iter().any(|part| part.starts_with(b".wh.")) {
            // Storage drivers of old (aufs) kept their own things there.
            return Ok(());
        }
        match names::whiteout(name, &entry.path)? {
            names::Name::Plain => {}
            names::Name::Meta => return Ok(()),
            names::Name::Opaque => return place.opaque(parents),
            names::Name::Whiteout(hidden) => return place.whiteout(parents, hidden),
        }
    }
    match entry.kind {
        Kind::Directory => place.directory(parents, name, entry),
        Kind::File => {
            let mut file = place.file(parents, name)?;
            archive.data(entry, |offset, piece| file.write(offset, piece))?;
            place.finish_file(&file, parents, name, entry)
        }
        Kind::Symlink => {
            names::check_link(&entry.link)?;
            place.symlink(parents, name, entry)
        }
        Kind::HardLink => {
            let target = names::clean(&entry.link)?;
            if !place.link(parents, name, &target)? {
                lower::copy_up(place, options.lowers, &target)?;
                if !place.link(parents, name, &target)? {
                    return Err(ImageError::Bad(format!(
                        "the hard link {} points to {}, which is not there",
                        names::show(&entry.path),
                        names::show(&entry.link)
                    )));
                }
            }
            Ok(())
        }
        Kind::Fifo => place.fifo(parents, name, entry),
        Kind::Character | Kind::Block => {
            if report.skipped.len() < MAX_REPORTED {
                report.skipped.push(format!(
                    "device {}:{} {}",
                    entry.device.0,
                    entry.device.1,
                    names::show(&entry.path)
                ));
            }
            Ok(())
        }
        Kind::Pax | Kind::PaxGlobal | Kind::GnuName | Kind::GnuLink | Kind::GnuSparse => {
            Err(ImageError::Bad("an extension stands alone".into()))
        }
    }
}

#[cfg(test)]
mod tests;
