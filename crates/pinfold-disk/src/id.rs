//! The ids that a pool takes: plain names that can never be a path.

use crate::error::DiskError;

/// Longest id, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 64;
/// Stands between an id and the number of the attempt in the names of partial and removed disks.
/// No id holds it.
pub(crate) const ATTEMPT: char = '~';

/// Refuses everything but 1 to 64 of `A-Z a-z 0-9 _ -`, beginning with a letter or digit.
pub(crate) fn check(id: &str) -> Result<(), DiskError> {
    let bytes = id.as_bytes();
    let plain = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if plain && bytes.len() <= MAX_ID_BYTES && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
    {
        Ok(())
    } else {
        Err(DiskError::Id(pinfold_types::name::excerpt(id)))
    }
}
