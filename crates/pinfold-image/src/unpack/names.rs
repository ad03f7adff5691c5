//! Names in archives, judged on paper.

use crate::error::{ImageError, Result};

/// Longest path (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4095;
/// Longest part of one (`NAME_MAX`).
const MAX_PART_BYTES: usize = 255;
/// Deepest path.
const MAX_DEPTH: usize = 128;

/// A name for a message.
pub(super) fn show(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(120).collect();
    format!("{text:?}")
}

/// The parts of a path below the root: leading slashes and `.` go, `..` is refused.
pub(super) fn clean(path: &[u8]) -> Result<Vec<&[u8]>> {
    let refuse =
        |why: &str| Err(ImageError::Bad(format!("the archive names {}, which {why}", show(path))));
    if path.len() > MAX_PATH_BYTES {
        return refuse("is longer than 4095 bytes");
    }
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.contains(&0) {
        return refuse("holds NUL");
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return refuse("climbs out with ..");
    }
    if parts.len() > MAX_DEPTH {
        return refuse("is deeper than 128 directories");
    }
    if parts.iter().any(|part| part.len() > MAX_PART_BYTES) {
        return refuse("has a part longer than 255 bytes");
    }
    Ok(parts)
}

/// A symbolic link may say anything that fits: nothing here follows it.
pub(super) fn check_link(target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
        return Err(ImageError::Bad("a symbolic link has no usable target".into()));
    }
    Ok(())
}

/// What a file name means in an OCI layer (image-spec, layer.md).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    Plain,
    /// The directory hides everything below it.
    Opaque,
    /// This name of the parent is hidden.
    Whiteout(&'a [u8]),
    /// Kept by old storage drivers for themselves.
    Meta,
}

pub(super) fn whiteout<'a>(name: &'a [u8], path: &[u8]) -> Result<Name<'a>> {
    let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(Name::Plain) };
    if name == b".wh..wh..opq" {
        return Ok(Name::Opaque);
    }
    if hidden.starts_with(b".wh.") {
        return Ok(Name::Meta);
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(ImageError::Bad(format!(
            "the whiteout {} hides no file of its directory",
            show(path)
        )));
    }
    Ok(Name::Whiteout(hidden))
}
