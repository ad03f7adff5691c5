//! Trees that only a helper can read: they come as its tar stream (see `userns`).

use std::{io::Read, path::Path};

use super::{Fields, Origin, Retar, kept_xattr};
use crate::{
    archive::{Archive, Entry, Kind},
    error::{ImageError, Result},
    unpack::place::OPAQUE,
};

impl<W: std::io::Write> Retar<W> {
    /// Adds the tree of a stream below `prefix`, as [`Self::tree`] adds one that this process can
    /// read; `id` translates the owners of the stream. Nothing is added of a tree without entries
    /// unless it is the top.
    pub(crate) fn stream_of_tree(
        &mut self,
        stream: &mut impl Read,
        prefix: &str,
        id: fn(u32) -> u32,
    ) -> Result<()> {
        let mut archive = Archive::new(stream);
        let mut top = None;
        while let Some(mut entry) = archive.next_entry()? {
            (entry.uid, entry.gid) = (id(entry.uid), id(entry.gid));
            let inside = inside_of(&entry.path);
            if inside.is_empty() && !prefix.is_empty() {
                top = Some(entry);
                continue;
            }
            if self.leave_out.iter().any(|path| {
                use std::os::unix::ffi::OsStrExt;
                Path::new(std::ffi::OsStr::from_bytes(&inside)).starts_with(path)
            }) {
                continue;
            }
            if let Some(top) = top.take() {
                self.streamed(&mut archive, &top, &joined(prefix, b""), prefix)?;
            }
            self.streamed(&mut archive, &entry, &joined(prefix, &inside), prefix)?;
        }
        archive.drain()
    }

    fn streamed<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        name: &[u8],
        prefix: &str,
    ) -> Result<()> {
        let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if self.from == Origin::Upper {
            if entry.kind == Kind::Character && entry.device == (0, 0) {
                let parent = &name[..name.len() - last.len()];
                return self.mark(Path::new(os(&[parent, b".wh.", last].concat())));
            }
            if last.starts_with(b".wh.") {
                return Err(ImageError::Bad(format!(
                    "{} cannot be put into a layer: names with .wh. in front mean something else \
                     there",
                    String::from_utf8_lossy(name)
                )));
            }
        }
        let mut name = if name.is_empty() { b".".to_vec() } else { name.to_vec() };
        let mut fields = Fields {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime.0,
            ..Fields::default()
        };
        fields.kind = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
            // Device nodes are refused anyway.
            _ => return Ok(()),
        };
        match entry.kind {
            Kind::Symlink => fields.link.clone_from(&entry.link),
            Kind::HardLink => {
                fields.link = joined(prefix, &inside_of(&entry.link));
                return self.header(&name, &fields, &[]);
            }
            Kind::Directory => name.push(b'/'),
            Kind::File => fields.size = entry.size,
            _ => {}
        }
        let mut xattrs = Vec::new();
        for (key, value) in &entry.xattrs {
            if kept_xattr(key, || String::from_utf8_lossy(&name).into_owned())? {
                xattrs.push((key.clone(), value.clone()));
            }
        }
        xattrs.sort();
        self.header(&name, &fields, &xattrs)?;
        if entry.kind == Kind::File {
            archive.data(entry, |_, piece| self.write(piece))?;
            self.pad(fields.size)?;
        }
        let opaque = |(key, value): &(Vec<u8>, Vec<u8>)| key == OPAQUE.as_bytes() && value == b"y";
        if self.from == Origin::Upper
            && entry.kind == Kind::Directory
            && name != b"./"
            && entry.xattrs.iter().any(opaque)
        {
            let mark = [name.as_slice(), b".wh..wh..opq"].concat();
            self.mark(Path::new(os(&mark)))?;
        }
        Ok(())
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// `./a/b/` as `a/b`.
fn inside_of(path: &[u8]) -> Vec<u8> {
    let path =
        path.strip_prefix(b".").filter(|rest| matches!(rest, [] | [b'/', ..])).unwrap_or(path);
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/')
}

fn joined(prefix: &str, inside: &[u8]) -> Vec<u8> {
    match (prefix.is_empty(), inside.is_empty()) {
        (true, _) => inside.to_vec(),
        (_, true) => prefix.as_bytes().to_vec(),
        _ => [prefix.as_bytes(), b"/", inside].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_streamed_tree_is_the_same_as_one_that_was_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        for name in ["", "b", "b/deep", "a", "opaque"] {
            std::fs::create_dir(tree.join(name)).expect("a directory");
        }
        std::fs::write(tree.join("b/deep/file"), vec![7; 1000]).expect("a file");
        std::fs::write(tree.join("empty"), b"").expect("a file");
        std::fs::hard_link(tree.join("b/deep/file"), tree.join("b/second")).expect("a link");
        std::fs::write(tree.join(format!("a/{}", "long".repeat(40))), b"x").expect("a file");
        symlink("../somewhere", tree.join("a/link")).expect("a link");
        xattr::set(tree.join("empty"), "user.kept", b"value").expect("an attribute");
        xattr::set(tree.join("opaque"), OPAQUE, b"y").expect("an attribute");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.join("b/gone"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .expect("a whiteout");
        for prefix in ["", "usr/lib"] {
            let mut read = Retar::new(Vec::new(), Origin::Upper);
            read.tree(&tree, prefix).expect("reads");
            let mut child = Command::new("tar")
                .args(["--create", "--format=posix", "--numeric-owner", "--sort=name", "--xattrs"])
                .args(["--xattrs-include=user.*", "--directory"])
                .arg(&tree)
                .arg(".")
                .stdout(Stdio::piped())
                .spawn()
                .expect("tar");
            let mut streamed = Retar::new(Vec::new(), Origin::Upper);
            let mut stdout = child.stdout.take().expect("piped");
            streamed.stream_of_tree(&mut stdout, prefix, |id| id).expect("reads");
            assert!(child.wait().expect("tar").success());
            let read = read.finish().expect("ends");
            assert_eq!(read, streamed.finish().expect("ends"), "below {prefix:?}");
            let whiteout = if prefix.is_empty() { "b/.wh.gone" } else { "usr/lib/b/.wh.gone" };
            assert!(read.windows(whiteout.len()).any(|at| at == whiteout.as_bytes()));
        }
    }

    #[test]
    fn names_are_cleaned() {
        assert_eq!(inside_of(b"./a/b/"), b"a/b");
        assert_eq!(inside_of(b"."), b"");
        assert_eq!(inside_of(b"./.hidden"), b".hidden");
        assert_eq!(inside_of(b".hidden"), b".hidden");
    }
}
