//! Tar streams of a workspace, unpacked on this machine without trust (VM-09).
//!
//! Every name is opened beneath the destination by the kernel (openat2(2), `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so that neither `..`, nor an absolute name, nor a link that the archive
//! brought, nor one that somebody swaps in meanwhile, leads outside. Set-user-id, set-group-id
//! and sticky bits, owners and extended attributes are dropped; devices, sockets and pipes are
//! left out and counted.
//!
//! A file or link gets its name when it is whole: what had the name before stays until then. A
//! file that is larger than what is free is refused before anything of it is written.

mod headers;
mod tree;

use std::io::Read;

use pinfold_types::{Error, ErrorCode, Result};
use tar::EntryType;

pub(super) use self::tree::{Tree, no_directory};
use self::{headers::Overrides, tree::FileFacts};

/// Most entries of one archive.
const MAX_ENTRIES: u64 = 20_000_000;

/// What an unpacking did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Files, directories and links made.
    pub(super) entries: u64,
    /// Bytes of files.
    pub(super) bytes: u64,
    /// Devices, sockets and pipes left out.
    pub(super) skipped: u64,
}

/// Unpacks `archive` into `tree`. The first part of every name becomes `top`, where one is given;
/// `progress` hears the bytes of files done so far.
pub(super) fn unpack(
    archive: impl Read,
    tree: &mut Tree,
    top: Option<&str>,
    mut progress: impl FnMut(u64),
) -> Result<Unpacked> {
    let mut archive = tar::Archive::new(archive);
    let mut done = Unpacked::default();
    let mut overrides = Overrides::default();
    let entries = archive.entries().map_err(|error| broken(&error))?;
    let mut count = 0;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| broken(&error))?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the archive has more than {MAX_ENTRIES} entries"),
            ));
        }
        if overrides.take(&mut entry)? {
            continue;
        }
        let own = std::mem::take(&mut overrides);
        let name = own.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = place(&name, top)?;
        if path.is_empty() {
            // The destination itself, which is there already.
            continue;
        }
        let header = entry.header();
        let mode = header.mode().map_err(|error| broken(&error))? & 0o777;
        let mtime = header.mtime().unwrap_or(0);
        let kind = header.entry_type();
        let link = own.link.or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        match kind {
            EntryType::Directory => tree.directory(&path, mode, mtime)?,
            EntryType::Regular | EntryType::Continuous => {
                let size = header.entry_size().map_err(|error| broken(&error))?;
                tree.file(&path, &FileFacts { mode, mtime, size }, &mut entry, |bytes| {
                    done.bytes += bytes;
                    progress(done.bytes);
                })?;
            }
            EntryType::Symlink => tree.symlink(&path, &link.ok_or_else(no_target)?)?,
            EntryType::Link => {
                let target = place(&link.ok_or_else(no_target)?, top)?;
                if target.is_empty() {
                    return Err(no_target());
                }
                tree.hard_link(&path, &target)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                done.skipped += 1;
                continue;
            }
            _ => {
                return Err(Error::new(
                    ErrorCode::BadImage,
                    format!("the archive has an entry of the unknown kind {:?}", kind.as_byte()),
                ));
            }
        }
        done.entries += 1;
    }
    tree.finish()?;
    Ok(done)
}

fn broken(error: &std::io::Error) -> Error {
    Error::new(ErrorCode::BadImage, format!("the archive cannot be read: {error}"))
}

fn no_target() -> Error {
    Error::new(ErrorCode::BadImage, "the archive has a link without a target")
}

/// The parts of a name below the destination, its first one replaced by `top`.
fn place(name: &[u8], top: Option<&str>) -> Result<Vec<Vec<u8>>> {
    let refuse = |why: &str| {
        Error::new(
            ErrorCode::BadImage,
            format!("the archive names {:?}: {why}", String::from_utf8_lossy(name)),
        )
        .hint("nothing was written outside the destination")
    };
    if name.len() > 4095 {
        return Err(refuse("the name is longer than 4095 bytes"));
    }
    if name.starts_with(b"/") {
        return Err(refuse("the name is absolute"));
    }
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refuse("the name leads upward")),
            part if part.contains(&0) => return Err(refuse("the name holds a NUL byte")),
            part => parts.push(part.to_vec()),
        }
    }
    match (parts.first_mut(), top) {
        (Some(first), Some(top)) => *first = top.as_bytes().to_vec(),
        (None, Some(top)) => parts.push(top.as_bytes().to_vec()),
        (_, None) => {}
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
