//! The archive, written from what was captured. Blocks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use pinfold_backup::{
    Key, Sealer,
    archive::{LeftOut, Member, Writer, pack},
};
use pinfold_disk::DiskLimits;
use pinfold_types::{Error, ErrorCode, Result, SnapshotId, WorkspaceId};
use serde::Serialize;

use super::{
    Captured,
    manifest::{BackupContents, DiskFacts},
};

/// How much of a file is read at once before its length is looked at.
const HEAD_BYTES: usize = 4096;

/// Directories of the home whose files are taken as they are.
const PLAIN: &[&str] = &["keys", "audit", "tls", "images/records"];

pub(super) fn write(mut captured: Captured, key: &Key, out: &mut impl Write) -> Result<()> {
    let mut archive = Archive {
        writer: Writer::new(Sealer::new(out, key)?),
        contents: BackupContents::default(),
        layers: BTreeSet::new(),
    };
    archive.json("manifest.json", &captured.manifest)?;
    archive.home_files(&captured.home)?;
    for digest in &captured.layers {
        archive.image_layer(&captured.home, digest)?;
    }
    while let Some((id, copy, limits)) = captured.disks.last().cloned() {
        archive.disk(&captured, id, &copy, limits)?;
        // Its space is free before the next one is read.
        captured.disks.pop();
        captured.pool.remove(&copy)?;
    }
    for id in &captured.snapshots {
        archive.snapshot(&captured, *id)?;
    }
    archive.home_file(&captured.database, "home/state.db")?;
    archive.contents.members = archive.writer.members();
    let contents = archive.contents;
    archive.json("end.json", &contents)?;
    let sealer = archive.writer.finish().map_err(broken("the end of the archive"))?;
    sealer.finish().map_err(broken("the end of the file"))?;
    tracing::info!(?contents, "a backup was written");
    Ok(())
}

/// A step that failed: because the reader went away, or because something could not be read.
fn broken(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::new(ErrorCode::Cancelled, "the reader has gone"),
        io::ErrorKind::NotFound => {
            Error::new(ErrorCode::Conflict, format!("{what} was removed while it was read"))
                .hint("make the backup again")
        }
        _ => Error::new(ErrorCode::Unavailable, format!("{what} cannot be read: {error}"))
            .hint("the backup is not whole and cannot be restored; make it again"),
    }
}

struct Archive<W> {
    writer: Writer<W>,
    contents: BackupContents,
    /// Sealed layers of the pool that are in it.
    layers: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec_pretty(value).map_err(Error::internal)?;
        self.writer.whole(name, &text).map_err(broken(name))
    }

    fn tree(&mut self, root: &Path, prefix: &str) -> Result<()> {
        let LeftOut { sockets, too_deep } =
            pack(&mut self.writer, root, prefix).map_err(broken(prefix))?;
        self.contents.sockets_left_out += sockets;
        self.contents.paths_left_out += too_deep;
        Ok(())
    }

    /// One file as long as it is now: what is appended meanwhile is left for the next backup.
    fn home_file(&mut self, path: &Path, name: &str) -> Result<()> {
        let failed = || broken(name.to_owned());
        let mut file = File::open(path).map_err(failed())?;
        // The head of a log says how much follows, so it is read before the length is looked at.
        let mut first = Vec::with_capacity(HEAD_BYTES);
        let most = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
        (&mut file).take(most).read_to_end(&mut first).map_err(failed())?;
        let had = first.len() as u64;
        let length = if had < most { had } else { file.metadata().map_err(failed())?.len() };
        self.writer.member(&Member::file(name, length)).map_err(failed())?;
        self.writer.write_all(&first).map_err(failed())?;
        let rest = &mut file.take(length.saturating_sub(had));
        let copied = had + io::copy(rest, &mut self.writer).map_err(failed())?;
        if copied < length {
            let shorter = io::Error::other("it became shorter while it was read");
            return Err(broken(name)(shorter));
        }
        Ok(())
    }

    fn home_files(&mut self, home: &Path) -> Result<()> {
        if home.join("config.toml").exists() {
            self.home_file(&home.join("config.toml"), "home/config.toml")?;
        }
        for directory in PLAIN {
            let path = home.join(directory);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(broken(*directory)(error)),
            };
            let mut names: Vec<String> = entries
                .filter_map(io::Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
                .filter_map(|entry| entry.file_name().into_string().ok())
                // What is being written under another name is nobody's yet.
                .filter(|name| !name.contains(".new"))
                .collect();
            // What says how far a log goes is read before the log: the log may then have more.
            names.sort_by_key(|name| (!name.contains("head"), name.clone()));
            for name in names {
                self.home_file(&path.join(&name), &format!("home/{directory}/{name}"))?;
            }
        }
        Ok(())
    }

    fn image_layer(&mut self, home: &Path, digest: &str) -> Result<()> {
        let name = digest.trim_start_matches("sha256:");
        let path = home.join("images/layers").join(name);
        if path.is_dir() {
            self.tree(&path, &format!("home/images/layers/{name}"))?;
            self.contents.layers += 1;
        }
        Ok(())
    }

    fn disk(
        &mut self,
        captured: &Captured,
        id: WorkspaceId,
        copy: &str,
        limits: DiskLimits,
    ) -> Result<()> {
        self.stored(captured, copy, &format!("pool/disks/{id}"), limits)?;
        self.contents.disks += 1;
        Ok(())
    }

    fn snapshot(&mut self, captured: &Captured, id: SnapshotId) -> Result<()> {
        // A copy, so that the snapshot may be removed meanwhile.
        let copy = WorkspaceId::generate().to_string();
        match captured.pool.clone_to(&id.to_string(), &copy, &DiskLimits::default(), 0) {
            Ok(_) => {}
            Err(gone) if gone.code == ErrorCode::NotFound => return Ok(()),
            Err(failed) => return Err(failed),
        }
        let name = format!("pool/snapshots/{id}");
        let written = self.stored(captured, &copy, &name, DiskLimits::default());
        captured.pool.remove(&copy)?;
        self.contents.snapshots += 1;
        written
    }

    /// A disk's facts, the layers below it that are not in the archive yet, and what it holds.
    fn stored(
        &mut self,
        captured: &Captured,
        copy: &str,
        name: &str,
        limits: DiskLimits,
    ) -> Result<()> {
        let (path, layers) = captured.pool.stored(copy)?;
        let mut names = Vec::new();
        for layer in layers {
            let layer_name = layer.path.file_name().and_then(|name| name.to_str());
            let layer_name = layer_name.ok_or_else(|| Error::internal("a layer without a name"))?;
            if self.layers.insert(layer_name.to_owned()) {
                let upper = layer.path.join("upper");
                self.tree(&upper, &format!("pool/layers/{layer_name}/upper"))?;
            }
            names.push(layer_name.to_owned());
        }
        let facts = DiskFacts { layers: names, bytes: limits.bytes, inodes: limits.inodes };
        self.json(&format!("{name}.json"), &facts)?;
        let upper = path.join("upper");
        if upper.is_dir() {
            self.tree(&upper, &format!("{name}/upper"))?;
        }
        Ok(())
    }
}
