//! Entries that only describe the next one: GNU long names (`L`, `K`) and pax headers (`x`, `g`).

use std::io::Read;

use pinfold_types::{Error, ErrorCode, Result};
use tar::{Entry, EntryType, PaxExtensions};

use super::broken;

/// Most bytes of one such entry.
const MAX_BYTES: u64 = 1 << 20;

/// What they said about the next entry.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
}

impl Overrides {
    /// Takes the entry in when it is one of these.
    pub(super) fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => self.path = Some(text(entry)?),
            EntryType::GNULongLink => self.link = Some(text(entry)?),
            EntryType::XHeader => {
                let bytes = bytes(entry)?;
                for extension in PaxExtensions::new(&bytes) {
                    let extension = extension.map_err(|error| broken(&error))?;
                    match extension.key_bytes() {
                        b"path" => self.path = Some(extension.value_bytes().to_vec()),
                        b"linkpath" => self.link = Some(extension.value_bytes().to_vec()),
                        // A size of its own would move every later header.
                        b"size" => {
                            return Err(Error::new(
                                ErrorCode::BadImage,
                                "the archive gives a size in a pax header, which is not taken",
                            ));
                        }
                        _ => {}
                    }
                }
            }
            EntryType::XGlobalHeader => {
                bytes(entry)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn bytes<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let size = entry.header().entry_size().map_err(|error| broken(&error))?;
    if size > MAX_BYTES {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("the archive has a header of {size} bytes; {MAX_BYTES} are taken"),
        ));
    }
    let mut out = Vec::new();
    entry.take(MAX_BYTES).read_to_end(&mut out).map_err(|error| broken(&error))?;
    Ok(out)
}

fn text<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let mut out = bytes(entry)?;
    if let Some(end) = out.iter().position(|byte| *byte == 0) {
        out.truncate(end);
    }
    Ok(out)
}
