//! Trees to tar streams, the same bytes for the same tree: sorted names, POSIX PAX format, no
//! access times, no names of users.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use pinfold_types::Mode;

use crate::{
    error::{ImageError, Result},
    userns,
};

mod stream;

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A root filesystem: what overlayfs marks with means nothing.
    Plain,
    /// An overlay's upper layer: its marks become `.wh.` names.
    Upper,
}

/// Writes trees as one archive.
#[derive(Debug)]
pub(crate) struct Retar<W> {
    out: W,
    from: Origin,
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Sub-trees of the next tree to leave out, relative to its root.
    leave_out: Vec<PathBuf>,
}

impl<W: Write> Retar<W> {
    pub(crate) fn new(out: W, from: Origin) -> Self {
        Self { out, from, links: HashMap::new(), leave_out: Vec::new() }
    }

    /// Leaves these out of the following trees.
    pub(crate) fn leave_out(&mut self, paths: Vec<PathBuf>) {
        self.leave_out = paths;
    }

    /// Adds the tree at `root` below `prefix` (without slashes around; empty for the top).
    pub(crate) fn tree(&mut self, root: &Path, prefix: &str) -> Result<()> {
        let mut parent = PathBuf::new();
        for part in Path::new(prefix).components() {
            parent.push(part);
        }
        let facts = fs::symlink_metadata(root).map_err(ImageError::io("look at", root))?;
        self.entry(root, &parent, &facts)?;
        self.children(root, Path::new(""), &parent)
    }

    /// The same where an ordinary user's tree is its sub-ids'.
    pub(crate) fn tree_as(&mut self, mode: Mode, root: &Path, prefix: &str) -> Result<()> {
        if mode == Mode::Root {
            return self.tree(root, prefix);
        }
        let mut helper = userns::read_tree(root)?;
        self.stream_of_tree(&mut helper, prefix, userns::inside_of_helper)?;
        helper.finish()
    }

    fn children(&mut self, root: &Path, inside: &Path, prefix: &Path) -> Result<()> {
        let dir = root.join(inside);
        let mut names: Vec<_> = fs::read_dir(&dir)
            .map_err(ImageError::io("read", &dir))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()
            .map_err(ImageError::io("read", &dir))?;
        names.sort();
        for name in names {
            let inside = inside.join(&name);
            if self.leave_out.contains(&inside) {
                continue;
            }
            let path = root.join(&inside);
            let facts = match fs::symlink_metadata(&path) {
                Ok(facts) => facts,
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                Err(err) => return Err(ImageError::io("look at", path)(err)),
            };
            let target = prefix.join(&inside);
            if self.from == Origin::Upper && facts.file_type().is_char_device() && facts.rdev() == 0
            {
                let mut hidden = b".wh.".to_vec();
                hidden.extend_from_slice(name.as_bytes());
                let hidden = target.with_file_name(std::ffi::OsString::from_vec(hidden));
                self.mark(&hidden)?;
                continue;
            }
            if self.from == Origin::Upper && name.as_bytes().starts_with(b".wh.") {
                return Err(ImageError::Bad(format!(
                    "{} cannot be put into a layer: names with .wh. in front mean \
                     something else there",
                    target.display()
                )));
            }
            self.entry(&path, &target, &facts)?;
            if facts.is_dir() {
                if self.from == Origin::Upper && is_opaque(&path)? {
                    self.mark(&target.join(".wh..wh..opq"))?;
                }
                self.children(root, &inside, prefix)?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, name: &Path) -> Result<()> {
        let header = Fields { kind: b'0', mode: 0o644, ..Fields::default() };
        self.header(name.as_os_str().as_bytes(), &header, &[])
    }

    fn entry(&mut self, path: &Path, name: &Path, facts: &Metadata) -> Result<()> {
        let mut bytes = name.as_os_str().as_bytes().to_vec();
        if bytes.is_empty() {
            bytes = b".".to_vec();
        }
        let kind = facts.file_type();
        let mut fields = Fields {
            kind: b'0',
            mode: facts.mode() & 0o7777,
            uid: facts.uid(),
            gid: facts.gid(),
            mtime: facts.mtime(),
            size: 0,
            link: Vec::new(),
        };
        if kind.is_dir() {
            fields.kind = b'5';
            bytes.push(b'/');
        } else if kind.is_symlink() {
            fields.kind = b'2';
            fields.link = fs::read_link(path)
                .map_err(ImageError::io("read", path))?
                .into_os_string()
                .into_vec();
        } else if kind.is_fifo() {
            fields.kind = b'6';
        } else if !kind.is_file() {
            // Sockets mean nothing without their process, device nodes are refused anyway.
            return Ok(());
        }
        if facts.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = self.links.get(&(facts.dev(), facts.ino())) {
                let link = first.clone();
                fields.kind = b'1';
                fields.link = link;
                return self.header(&bytes, &fields, &[]);
            }
            self.links.insert((facts.dev(), facts.ino()), bytes.clone());
        }
        let xattrs = if kind.is_symlink() { Vec::new() } else { xattrs(path)? };
        if !kind.is_file() {
            return self.header(&bytes, &fields, &xattrs);
        }
        let file = File::open(path).map_err(ImageError::io("open", path))?;
        fields.size = file.metadata().map_err(ImageError::io("look at", path))?.len();
        self.header(&bytes, &fields, &xattrs)?;
        let copied = io::copy(&mut file.take(fields.size), &mut self.out)
            .map_err(ImageError::io("read", path))?;
        if copied != fields.size {
            return Err(ImageError::Bad(format!("{} changed while it was read", path.display())));
        }
        self.pad(copied)
    }

    fn header(
        &mut self,
        name: &[u8],
        fields: &Fields,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let mut records = Vec::new();
        if name.len() > 100 {
            record(&mut records, b"path", name);
        }
        if fields.link.len() > 100 {
            record(&mut records, b"linkpath", &fields.link);
        }
        if fields.size > 0o777_7777_7777 {
            record(&mut records, b"size", fields.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], fields.uid), (b"gid", fields.gid)] {
            if id > 0o777_7777 {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if fields.mtime < 0 || fields.mtime > 0o777_7777_7777 {
            record(&mut records, b"mtime", fields.mtime.to_string().as_bytes());
        }
        for (key, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let extension =
                Fields { kind: b'x', mode: 0o644, size: records.len() as u64, ..Fields::default() };
            self.write(&extension.block(b"PaxHeaders/entry"))?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write(&fields.block(name))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(ImageError::io("write", "the archive"))
    }

    fn pad(&mut self, length: u64) -> Result<()> {
        let padding = usize::try_from(length.wrapping_neg() % 512).expect("below 512");
        self.write(&[0; 512][..padding])
    }

    /// Writes the end marker and gives the output back.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.write(&[0; 1024])?;
        self.out.flush().map_err(ImageError::io("write", "the archive"))?;
        Ok(self.out)
    }

    /// Adds a file from memory, for archives that hold images.
    pub(crate) fn content(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let fields =
            Fields { kind: b'0', mode: 0o644, size: content.len() as u64, ..Fields::default() };
        self.header(name.as_bytes(), &fields, &[])?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    /// Adds a file from a reader of known length.
    pub(crate) fn stream(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        let fields = Fields { kind: b'0', mode: 0o644, size, ..Fields::default() };
        self.header(name.as_bytes(), &fields, &[])?;
        let copied = io::copy(&mut content.take(size), &mut self.out)
            .map_err(ImageError::io("write", "the archive"))?;
        if copied != size {
            return Err(ImageError::Bad(format!("{name} changed while it was read")));
        }
        self.pad(size)
    }
}

#[derive(Debug, Default)]
struct Fields {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    link: Vec<u8>,
}

impl Fields {
    /// A ustar header; what does not fit is cut and stands in the extended header before it.
    fn block(&self, name: &[u8]) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        let small = |id: u32| if id > 0o777_7777 { 0 } else { id };
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", small(self.uid)).as_bytes());
        put(116, format!("{:07o}\0", small(self.gid)).as_bytes());
        let size = if self.size > 0o777_7777_7777 { 0 } else { self.size };
        put(124, format!("{size:011o}\0").as_bytes());
        let mtime = if (0..=0o777_7777_7777).contains(&self.mtime) { self.mtime } else { 0 };
        put(136, format!("{mtime:011o}\0").as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Those that layers keep, sorted.
fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let fail = || ImageError::io("read the attributes of", path);
    let Ok(names) = xattr::list(path) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in names {
        let bytes = name.as_bytes();
        if kept_xattr(bytes, || path.display().to_string())?
            && let Some(value) = xattr::get(path, &name).map_err(fail())?
        {
            found.push((bytes.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether layers keep an attribute; `path` is for the error about one that they cannot hold.
fn kept_xattr(name: &[u8], path: impl Fn() -> String) -> Result<bool> {
    if name.starts_with(b"user.overlay.redirect") || name == b"user.overlay.metacopy" {
        return Err(ImageError::Bad(format!(
            "{} was moved by an overlay feature that layers cannot hold",
            path()
        )));
    }
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    Ok(user || name == b"security.capability")
}

fn is_opaque(path: &Path) -> Result<bool> {
    let value = xattr::get(path, "user.overlay.opaque")
        .map_err(ImageError::io("read the attributes of", path))?;
    Ok(value.as_deref() == Some(b"y"))
}
