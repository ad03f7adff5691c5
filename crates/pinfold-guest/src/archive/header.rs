//! One entry's header, read and written. Nothing in it is trusted.

use std::io::{self, Read, Write};

/// Everything in a tar comes in these.
pub const BLOCK: usize = 512;
/// Most bytes of the long names and pax records of one entry.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// Character or block device.
    Device,
}

/// One entry. Names are bytes as on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Type,
    /// Path in the archive.
    pub path: Vec<u8>,
    /// Target, of links.
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of content that follow; 0 for everything but files.
    pub size: u64,
    /// Modified, seconds since the epoch.
    pub mtime: i64,
    /// Extended attributes with their full names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed, or the archive ended in the middle.
    #[error("the archive ended early")]
    Read(#[from] io::Error),
    /// Not a tar header.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    /// Too long for its purpose.
    #[error("the archive has {0} longer than {1} bytes")]
    TooLong(&'static str, u64),
    /// A feature that is not supported.
    #[error("the archive has {0}, which is not supported")]
    Unsupported(&'static str),
}

/// Reads headers off an archive. The caller reads each entry's content, then calls
/// [`Reader::skip_padding`].
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    global: Extensions,
}

#[derive(Clone, Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

fn field(block: &[u8; BLOCK], start: usize, length: usize) -> &[u8] {
    block.get(start..start + length).unwrap_or_default()
}

/// Text up to its NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, or GNU's big-endian binary marked by the top bit.
fn number(field: &[u8]) -> Result<i64, TarError> {
    let damaged = TarError::Damaged("a number in a header");
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        value = (value << 6) | i128::from(first & 0x3f);
        for byte in rest {
            value = value
                .checked_mul(256)
                .map(|value| value | i128::from(*byte))
                .ok_or(TarError::Damaged("a number in a header"))?;
        }
        return i64::try_from(value).map_err(|_| damaged);
    }
    let mut value: i64 = 0;
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ');
    for digit in digits.take_while(|byte| !matches!(byte, 0 | b' ')) {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(damaged);
        }
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or(TarError::Damaged("a number in a header"))?;
    }
    Ok(value)
}

fn positive(field: &[u8]) -> Result<u64, TarError> {
    u64::try_from(number(field)?).map_err(|_| TarError::Damaged("a negative number in a header"))
}

/// Sum of a header's bytes with its own field as spaces. Old tars summed signed bytes.
fn sums(block: &[u8; BLOCK]) -> (i64, i64) {
    let mut sums = (0, 0);
    for (place, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&place) { b' ' } else { *byte };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte.cast_signed());
    }
    sums
}

impl<R: Read> Reader<R> {
    /// Reads an archive from its first byte.
    pub fn new(inner: R) -> Self {
        Self { inner, global: Extensions::default() }
    }

    /// The next entry; `None` at the archive's end, which is an empty block or the stream's end.
    ///
    /// # Errors
    /// [`TarError`]; the archive cannot be read on after it.
    pub fn entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extra = self.global.clone();
        let mut extended = false;
        loop {
            let Some(block) = self.block()? else {
                return if extended {
                    Err(TarError::Damaged("a long name without its entry"))
                } else {
                    Ok(None)
                };
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let (unsigned, signed) = sums(&block);
            let sum = number(field(&block, 148, 8))?;
            if sum != unsigned && sum != signed {
                return Err(TarError::Damaged("a header's checksum"));
            }
            let size = positive(field(&block, 124, 12))?;
            let flag = block.get(156).copied().unwrap_or(0);
            match flag {
                b'L' | b'K' => {
                    let name = self.extension("a name", size)?;
                    let name = text(&name).to_vec();
                    *(if flag == b'L' { &mut extra.path } else { &mut extra.link }) = Some(name);
                    extended = true;
                }
                b'x' => {
                    let records = self.extension("pax records", size)?;
                    extra.read_pax(&records)?;
                    extended = true;
                }
                b'g' => {
                    let records = self.extension("pax records", size)?;
                    self.global.read_pax(&records)?;
                    extra.read_pax(&records)?;
                }
                _ => return Self::parse(&block, flag, size, extra).map(Some),
            }
        }
    }

    fn parse(
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extra: Extensions,
    ) -> Result<Entry, TarError> {
        let mut path = extra.path.unwrap_or_else(|| {
            let name = text(field(block, 0, 100));
            let prefix = text(field(block, 345, 155));
            // Only POSIX's magic says that there is a prefix; GNU keeps times there.
            if field(block, 257, 6) == b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        });
        let link = extra.link.unwrap_or_else(|| text(field(block, 157, 100)).to_vec());
        let kind = match flag {
            0 | b'0' | b'7' if path.ends_with(b"/") => Type::Directory,
            0 | b'0' | b'7' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' | b'4' => Type::Device,
            b'5' => Type::Directory,
            b'6' => Type::Fifo,
            b'S' => return Err(TarError::Unsupported("a sparse file")),
            _ => return Err(TarError::Unsupported("an entry of an unknown type")),
        };
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        Ok(Entry {
            kind,
            path,
            link,
            mode: u32::try_from(number(field(block, 100, 8))? & 0o7777).unwrap_or(0),
            uid: extra.uid.map_or_else(|| positive(field(block, 108, 8)), Ok)?,
            gid: extra.gid.map_or_else(|| positive(field(block, 116, 8)), Ok)?,
            // Some writers give links the size of their target, without content.
            size: if kind == Type::File { extra.size.unwrap_or(size) } else { 0 },
            mtime: extra.mtime.map_or_else(|| number(field(block, 136, 12)), Ok)?,
            xattrs: extra.xattrs,
        })
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn extension(&mut self, what: &'static str, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::TooLong(what, MAX_EXTENSION));
        }
        let mut bytes = Vec::new();
        self.content(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.skip_padding(size)?;
        Ok(bytes)
    }

    /// The content of the entry just read.
    pub fn content(&mut self, size: u64) -> impl Read + '_ {
        self.inner.by_ref().take(size)
    }

    /// Reads over what fills the last block of `size` bytes of content.
    ///
    /// # Errors
    /// When the archive ends before.
    pub fn skip_padding(&mut self, size: u64) -> Result<(), TarError> {
        let over = size % BLOCK as u64;
        if over == 0 {
            return Ok(());
        }
        let padding = BLOCK as u64 - over;
        let skipped = io::copy(&mut self.content(padding), &mut io::sink())?;
        if skipped != padding {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    /// Reads what follows the archive's end: senders pad, and should not find nobody there.
    ///
    /// # Errors
    /// When reading fails.
    pub fn drain(&mut self) -> Result<(), TarError> {
        // Ten mebibytes of zeros are the most any tool's blocking factor makes.
        io::copy(&mut self.content(10 << 20), &mut io::sink())?;
        Ok(())
    }
}

impl Extensions {
    /// `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        let damaged = || TarError::Damaged("a pax record");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let (digits, _) = records.split_at_checked(space).ok_or_else(damaged)?;
            let length: usize = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(damaged)?;
            let (record, rest) = records.split_at_checked(length).ok_or_else(damaged)?;
            records = rest;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(damaged)?;
            let value = value.get(1..).unwrap_or_default();
            let key = std::str::from_utf8(key).map_err(|_| damaged())?;
            let whole = || {
                // Times have fractions.
                let text = std::str::from_utf8(value).ok()?;
                text.split('.').next()?.parse::<i64>().ok()
            };
            let count = || u64::try_from(whole()?).ok();
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "size" => self.size = Some(count().ok_or_else(damaged)?),
                "uid" => self.uid = Some(count().ok_or_else(damaged)?),
                "gid" => self.gid = Some(count().ok_or_else(damaged)?),
                "mtime" => self.mtime = Some(whole().ok_or_else(damaged)?),
                _ if key.starts_with("GNU.sparse.") => {
                    return Err(TarError::Unsupported("a sparse file"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.")
                        && self.xattrs.len() < 64
                    {
                        self.xattrs.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes `entry` as one header block, with long names in front where they need it.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    for (flag, name) in [(b'L', &entry.path), (b'K', &entry.link)] {
        if name.len() > 100 {
            let size = name.len() as u64 + 1;
            let long = Entry { path: b"././@LongLink".to_vec(), link: vec![], size, ..bare(entry) };
            out.write_all(&block(&long, flag))?;
            out.write_all(name)?;
            out.write_all(&[0])?;
            pad(out, size)?;
        }
    }
    let flag = match entry.kind {
        Type::File => b'0',
        Type::HardLink => b'1',
        Type::Symlink => b'2',
        Type::Directory => b'5',
        Type::Fifo => b'6',
        Type::Device => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    out.write_all(&block(entry, flag))
}

/// Fills the last block of `size` bytes of content.
///
/// # Errors
/// What `out` says.
pub fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 {
        return Ok(());
    }
    out.write_all([0; BLOCK].get(over..).unwrap_or_default())
}

fn bare(_: &Entry) -> Entry {
    Entry {
        kind: Type::File,
        path: vec![],
        link: vec![],
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 0,
        xattrs: vec![],
    }
}

fn block(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |start: usize, bytes: &[u8]| {
        if let Some(space) = block.get_mut(start..start + bytes.len()) {
            space.copy_from_slice(bytes);
        }
    };
    put(0, entry.path.get(..entry.path.len().min(100)).unwrap_or_default());
    put(157, entry.link.get(..entry.link.len().min(100)).unwrap_or_default());
    for (start, length, value) in [
        (100, 8, i128::from(entry.mode)),
        (108, 8, i128::from(entry.uid)),
        (116, 8, i128::from(entry.gid)),
        (124, 12, i128::from(entry.size)),
        (136, 12, i128::from(entry.mtime)),
    ] {
        put(start, &digits(length, value));
    }
    put(156, &[flag]);
    // GNU's magic: only its readers know the binary numbers and long names above.
    put(257, b"ustar  \0");
    put(148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    if let Some(space) = block.get_mut(148..156) {
        space.copy_from_slice(sum.as_bytes());
    }
    block
}

/// Octal with a NUL where it fits, else binary.
fn digits(length: usize, value: i128) -> Vec<u8> {
    let octal = format!("{:0width$o}", value.max(0), width = length - 1);
    if value >= 0 && octal.len() < length {
        let mut text = octal.into_bytes();
        text.push(0);
        return text;
    }
    let bytes = value.to_be_bytes();
    let mut field = bytes.get(bytes.len() - length..).unwrap_or_default().to_vec();
    if let Some(first) = field.first_mut() {
        *first |= 0x80;
    }
    field
}
