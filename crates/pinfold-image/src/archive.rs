//! A reader of tar streams that never allocates more than it was told to: POSIX ustar, PAX
//! (POSIX.1-2017 pax(1)), GNU long names and sparse files, base-256 numbers.
//!
//! It yields entries as written and judges none of them: `unpack` does.

use std::io::{self, Read};

use crate::error::{ImageError, Result};

mod header;
mod pax;
mod sparse;

use header::Header;
pub(crate) use header::Kind;

const BLOCK: usize = 512;
/// Longest PAX or GNU extension of one entry.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Most extensions in a row before an entry.
const MAX_EXTENSIONS: u32 = 16;

/// One entry, with its extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// 0o7777 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Size of the file as seen, holes included.
    pub size: u64,
    /// Target of a link.
    pub link: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Pieces of data of a sparse file: offset, length.
    sparse: Option<Vec<(u64, u64)>>,
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    inner: R,
    /// Bytes of the current entry's data that were not read, and the padding after them.
    left: u64,
    padding: u64,
    global: pax::Records,
}

pub(crate) fn bad(why: impl Into<String>) -> ImageError {
    ImageError::Bad(format!("the archive is not a valid tar: {}", why.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn broken(err: io::Error) -> ImageError {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => bad("it is cut short"),
        // Decoders report damage so; limits of ours travel as `Other` with their own text.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            bad(format!("its compression is damaged ({err})"))
        }
        io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge | io::ErrorKind::TimedOut => {
            ImageError::Limit(err.to_string())
        }
        _ => ImageError::Bad(format!("the archive cannot be read: {err}")),
    }
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, global: pax::Records::default() }
    }

    /// The next entry; what was not read of the one before is skipped. None at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut local = pax::Records::default();
        let (mut long_name, mut long_link) = (None, None);
        for extensions in 0..=MAX_EXTENSIONS {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if extensions == 0 { Ok(None) } else { Err(bad("it is cut short")) };
            };
            self.left = header.size;
            self.padding = header.size.wrapping_neg() % BLOCK as u64;
            match header.kind {
                Kind::Pax => local.add(&self.extension()?)?,
                Kind::PaxGlobal => {
                    let text = self.extension()?;
                    self.global.add(&text)?;
                }
                Kind::GnuName => long_name = Some(until_nul(self.extension()?)),
                Kind::GnuLink => long_link = Some(until_nul(self.extension()?)),
                _ => return self.entry(header, local, long_name, long_link).map(Some),
            }
        }
        Err(bad(format!("an entry has more than {MAX_EXTENSIONS} extensions")))
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        // Some writers leave the end marker out, so a clean end is an end.
        match self.inner.read(&mut block).map_err(broken)? {
            0 => return Ok(None),
            got => self.inner.read_exact(&mut block[got..]).map_err(broken)?,
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Header::parse(&block).map(Some)
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > MAX_EXTENSION_BYTES {
            return Err(ImageError::Limit(format!(
                "a name or extended header of the archive is longer than {MAX_EXTENSION_BYTES} bytes"
            )));
        }
        let mut text = Vec::new();
        let length = self.left;
        let got = (&mut self.inner).take(length).read_to_end(&mut text).map_err(broken)?;
        if got as u64 != length {
            return Err(bad("it is cut short"));
        }
        self.left = 0;
        Ok(text)
    }

    fn entry(
        &mut self,
        header: Header,
        local: pax::Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let records = self.global.merged(local);
        if let Some(size) = records.size {
            self.left = size;
            self.padding = size.wrapping_neg() % BLOCK as u64;
        }
        if !matches!(header.kind, Kind::File | Kind::GnuSparse) && self.left != 0 {
            // Hard links and others may announce a size without carrying data: what counts is
            // whether the writer put any, and no writer in use does.
            if header.kind == Kind::HardLink && records.size.is_none() {
                self.left = 0;
                self.padding = 0;
            } else {
                return Err(bad("an entry that is not a file carries data"));
            }
        }
        let mut entry = Entry {
            path: records.path.or(long_name).unwrap_or(header.path),
            kind: header.kind,
            mode: header.mode & 0o7777,
            uid: records.uid.unwrap_or(header.uid),
            gid: records.gid.unwrap_or(header.gid),
            mtime: records.mtime.unwrap_or((header.mtime, 0)),
            size: self.left,
            link: records.link.or(long_link).unwrap_or(header.link),
            xattrs: records.xattrs,
            device: header.device,
            sparse: None,
        };
        if entry.kind == Kind::GnuSparse {
            let (map, size) = sparse::old_gnu(&header.block, || {
                let mut block = [0; BLOCK];
                self.inner.read_exact(&mut block).map_err(broken)?;
                Ok(block)
            })?;
            entry.kind = Kind::File;
            entry.set_sparse(map, size, self.left)?;
        } else if entry.kind == Kind::File
            && let Some(gnu) = records.sparse
        {
            if let Some(name) = gnu.name {
                entry.path = name;
            }
            let size = gnu.real_size.ok_or_else(|| bad("a sparse file has no size"))?;
            let map = match gnu.map {
                Some(map) => map,
                None => self.sparse_map_in_data()?,
            };
            entry.set_sparse(map, size, self.left)?;
        }
        Ok(entry)
    }

    /// PAX sparse format 1.0: the map stands in front of the data, in decimal lines, padded to a
    /// block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut reader = sparse::MapReader::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(bad("a sparse map is cut short"));
            }
            let mut block = [0; BLOCK];
            self.inner.read_exact(&mut block).map_err(broken)?;
            self.left -= BLOCK as u64;
            if let Some(map) = reader.feed(&block)? {
                return Ok(map);
            }
        }
    }

    /// Reads the data of the current entry, handing over each piece with its place in the file.
    pub(crate) fn data(
        &mut self,
        entry: &Entry,
        mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        let mut buffer = vec![0; 128 << 10];
        for (offset, length) in pieces {
            let mut done = 0;
            while done < *length {
                let want = usize::try_from(*length - done).unwrap_or(usize::MAX).min(buffer.len());
                let got = self.inner.read(&mut buffer[..want]).map_err(broken)?;
                if got == 0 {
                    return Err(bad("it is cut short"));
                }
                self.left = self
                    .left
                    .checked_sub(got as u64)
                    .ok_or_else(|| bad("a sparse map is longer than its data"))?;
                sink(offset + done, &buffer[..got])?;
                done += got as u64;
            }
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<()> {
        let length = self.left.checked_add(self.padding).ok_or_else(|| bad("a size overflows"))?;
        if length > 0 {
            let got =
                io::copy(&mut (&mut self.inner).take(length), &mut io::sink()).map_err(broken)?;
            if got != length {
                return Err(bad("it is cut short"));
            }
        }
        self.left = 0;
        self.padding = 0;
        Ok(())
    }

    /// Reads to the end of the stream, so that whoever hashes it sees all of it.
    pub(crate) fn drain(&mut self) -> Result<()> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(broken)
    }
}

impl Entry {
    fn set_sparse(&mut self, map: Vec<(u64, u64)>, size: u64, data: u64) -> Result<()> {
        let mut end = 0;
        let mut total: u64 = 0;
        for (offset, length) in &map {
            if *offset < end {
                return Err(bad("a sparse map is out of order"));
            }
            end = offset.checked_add(*length).ok_or_else(|| bad("a sparse map overflows"))?;
            total += length;
        }
        if end > size || total != data {
            return Err(bad("a sparse map does not fit its file"));
        }
        self.size = size;
        self.sparse = Some(map);
        Ok(())
    }

    /// The same with another size.
    pub(crate) fn sized(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// Bytes of data, holes left out.
    pub(crate) fn stored(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size, |map| map.iter().map(|(_, length)| length).sum())
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

impl Entry {
    /// Facts of a file that does not come from an archive.
    pub(crate) const fn of_file(
        kind: Kind,
        mode: u32,
        (uid, gid): (u32, u32),
        mtime: (i64, u32),
    ) -> Self {
        Self {
            path: Vec::new(),
            kind,
            mode,
            uid,
            gid,
            mtime,
            size: 0,
            link: Vec::new(),
            xattrs: Vec::new(),
            device: (0, 0),
            sparse: None,
        }
    }
}
