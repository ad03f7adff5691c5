//! Maps of sparse files.

use super::{BLOCK, bad, header::number};
use crate::error::{ImageError, Result};

/// Most pieces of one file.
const MAX_PIECES: usize = 1 << 16;

fn too_many() -> ImageError {
    ImageError::Limit(format!("a sparse file has more than {MAX_PIECES} pieces"))
}

/// The old GNU format: four pieces in the header, 21 in each further block.
pub(super) fn old_gnu(
    header: &[u8; BLOCK],
    mut next_block: impl FnMut() -> Result<[u8; BLOCK]>,
) -> Result<(Vec<(u64, u64)>, u64)> {
    let mut map = Vec::new();
    let mut add = |fields: &[u8]| -> Result<()> {
        for piece in fields.chunks_exact(24) {
            if piece[0] == 0 {
                break;
            }
            if map.len() >= MAX_PIECES {
                return Err(too_many());
            }
            map.push((number(&piece[..12])?, number(&piece[12..])?));
        }
        Ok(())
    };
    add(&header[386..482])?;
    let mut more = header[482] != 0;
    while more {
        let block = next_block()?;
        add(&block[..504])?;
        more = block[504] != 0;
    }
    Ok((map, number(&header[483..495])?))
}

/// Decimal lines: the count, then offset and length of each piece.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    digits: String,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapReader {
    /// The map once it is whole; what follows it in the block is padding.
    pub(super) fn feed(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<(u64, u64)>>> {
        for byte in block {
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(char::from(*byte)),
                b'\n' => {
                    let value: u64 =
                        self.digits.parse().map_err(|_| bad("a sparse map is not numbers"))?;
                    self.digits.clear();
                    match self.count {
                        None => {
                            let count = usize::try_from(value).map_err(|_| too_many())?;
                            if count > MAX_PIECES {
                                return Err(too_many());
                            }
                            self.count = Some(count);
                        }
                        Some(_) => self.numbers.push(value),
                    }
                }
                _ => return Err(bad("a sparse map is not numbers")),
            }
            if self.count.is_some_and(|count| self.numbers.len() == count * 2) {
                let pairs = self.numbers.chunks_exact(2);
                return Ok(Some(pairs.map(|pair| (pair[0], pair[1])).collect()));
            }
        }
        Ok(None)
    }
}
