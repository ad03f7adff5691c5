//! PAX extended headers: `length key=value\n` records.

use super::bad;
use crate::error::Result;

/// Most extended attributes of one entry.
const MAX_XATTRS: usize = 64;

/// GNU's way of storing sparse files in PAX headers, versions 0.0, 0.1 and 1.0.
#[derive(Clone, Debug, Default)]
pub(super) struct GnuSparse {
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    pub map: Option<Vec<(u64, u64)>>,
    offset: Option<u64>,
}

/// The records that matter to us.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<GnuSparse>,
}

impl Records {
    /// Adds the records of one header.
    pub(super) fn add(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let space = text
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(|| bad("an extended header has no length"))?;
            let length: usize = parse(&text[..space])?;
            if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
                return Err(bad("an extended header has a wrong length"));
            }
            let record = &text[space + 1..length - 1];
            text = &text[length..];
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(|| bad("an extended header has no value"))?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let no_nul = || {
            if value.contains(&0) { Err(bad("a name holds NUL")) } else { Ok(value.to_vec()) }
        };
        match key {
            b"path" => self.path = Some(no_nul()?),
            b"linkpath" => self.link = Some(no_nul()?),
            b"size" => self.size = Some(parse(value)?),
            b"uid" => self.uid = Some(parse(value)?),
            b"gid" => self.gid = Some(parse(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() >= MAX_XATTRS {
                        return Err(bad(format!("an entry has more than {MAX_XATTRS} xattrs")));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.gnu_sparse(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn gnu_sparse(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let sparse = self.sparse.get_or_insert_default();
        match key {
            b"name" => sparse.name = Some(value.to_vec()),
            b"realsize" | b"size" => sparse.real_size = Some(parse(value)?),
            b"map" => {
                let numbers = value
                    .split(|byte| *byte == b',')
                    .map(parse::<u64>)
                    .collect::<Result<Vec<_>>>()?;
                let pairs = numbers.chunks_exact(2);
                if !pairs.remainder().is_empty() {
                    return Err(bad("a sparse map is odd"));
                }
                sparse.map = Some(pairs.map(|pair| (pair[0], pair[1])).collect());
            }
            b"offset" => sparse.offset = Some(parse(value)?),
            b"numbytes" => {
                let offset = sparse.offset.take().ok_or_else(|| bad("a sparse map is odd"))?;
                sparse.map.get_or_insert_default().push((offset, parse(value)?));
            }
            // "0.0" files have a map by now or none; major 1 keeps it in the data.
            _ => {}
        }
        Ok(())
    }

    /// A global header's records, overridden by an entry's own.
    pub(super) fn merged(&self, local: Self) -> Self {
        Self {
            path: local.path.or_else(|| self.path.clone()),
            link: local.link.or_else(|| self.link.clone()),
            size: local.size.or(self.size),
            uid: local.uid.or(self.uid),
            gid: local.gid.or(self.gid),
            mtime: local.mtime.or(self.mtime),
            xattrs: if local.xattrs.is_empty() { self.xattrs.clone() } else { local.xattrs },
            sparse: local.sparse,
        }
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad("an extended header has a wrong number"))
}

fn time(text: &[u8]) -> Result<(i64, u32)> {
    let wrong = || bad("an extended header has a wrong time");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| wrong())?;
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or_else(wrong)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}
