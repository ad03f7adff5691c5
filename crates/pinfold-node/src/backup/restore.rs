//! A backup read: checked only, or put onto an empty home.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pinfold_backup::{
    Key, Opener,
    archive::{Kind, Member, Reader, Unpacker},
};
use pinfold_disk::{DiskLimits, Mounted, Pool};
use pinfold_store::Store;
use pinfold_types::{
    Error, ErrorCode, Mode, Result, WorkspaceId, WorkspaceState,
    config::{Config, PoolConfig},
};
use serde::{Serialize, de::DeserializeOwned};

use super::manifest::{BackupContents, BackupManifest, DiskFacts, FORMAT};
use crate::{lifecycle::ended_boot, node::blocking};

/// Most bytes of a member that is read whole.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: BackupManifest,
    /// What was in it.
    pub contents: BackupContents,
    /// Records of workspaces and snapshots whose disks were gone when they were to be read, or
    /// that lived only for a command. They are not restored.
    pub dropped: Vec<String>,
}

/// Reads a backup to its end and checks all of it. Blocks.
pub fn verify(from: impl Read, key: &Key) -> Result<Restored> {
    let (manifest, contents) = walk(from, key, &mut Nowhere)?;
    Ok(Restored { manifest, contents, dropped: Vec::new() })
}

/// Puts a backup onto `home`, which must be missing or empty: everything is made beside it and
/// gets its place when it is whole. On failure nothing is left.
pub async fn restore(from: impl Read + Send + 'static, key: Key, home: &Path) -> Result<Restored> {
    refuse_used(home)?;
    let name = home.file_name().ok_or_else(|| invalid(home, "is no place for a home"))?;
    let mut draft = name.to_owned();
    draft.push(format!(".restoring-{}", std::process::id()));
    let draft = Draft { path: home.with_file_name(draft), outside: None, kept: false };
    if let Some(parent) = home.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at(parent))?;
    }
    DirBuilder::new().mode(0o700).create(&draft.path).map_err(at(&draft.path))?;
    let (mut draft, key) = (draft, key);
    let (mut draft, (manifest, contents), disks) = blocking(move || {
        let mut place = Place {
            home: draft.path.clone(),
            pool: None,
            disks: HashSet::new(),
            open: None,
            facts: None,
        };
        let read = walk(from, &key, &mut place);
        draft.outside = place.outside();
        let disks = std::mem::take(&mut place.disks);
        let closed = place.close();
        let read = read?;
        closed?;
        Ok((draft, read, disks))
    })
    .await?;
    let dropped = settle(&draft.path, &manifest, &disks).await?;
    let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path));
    sync(&draft.path)?;
    fs::rename(&draft.path, home).map_err(at(home))?;
    draft.kept = true;
    if let Some(parent) = home.parent() {
        sync(parent)?;
    }
    Ok(Restored { manifest, contents, dropped })
}

/// A home that is being made. It goes with whatever was made in it, unless it is kept.
struct Draft {
    path: PathBuf,
    /// A pool elsewhere, which was made too.
    outside: Option<PathBuf>,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for path in [Some(&self.path), self.outside.as_ref()].into_iter().flatten() {
            if let Err(error) = fs::remove_dir_all(path) {
                tracing::warn!(path = %path.display(), %error, "half a restore could not be removed");
            }
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorCode::DiskFull, format!("{path}: the disk is full"))
        }
        _ => Error::new(ErrorCode::Unavailable, format!("{path}: {error}")),
    }
}

fn invalid(path: &Path, what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{} {what}", path.display()))
}

fn refuse_used(home: &Path) -> Result<()> {
    match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(home)(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorCode::Conflict,
                format!("{} is not empty: a backup is restored onto an empty home", home.display()),
            )
            .hint("move it away, or give another --home DIR")),
        },
    }
}

/// A read that failed: what is wrong is said by whoever found it.
#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped with")]
fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::new(ErrorCode::InvalidArgument, error.to_string())
            .hint("nothing was restored; use another copy of the backup"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorCode::DiskFull, "the disk is full; nothing was restored")
        }
        _ => Error::new(ErrorCode::Unavailable, format!("the backup cannot be restored: {error}"))
            .hint("nothing was restored"),
    }
}

type Archive<R> = Reader<Opener<R>>;

/// Where members go.
trait Target {
    fn begin(&mut self, manifest: &BackupManifest) -> Result<()>;
    fn member<R: Read>(&mut self, member: &Member, from: &mut Archive<R>) -> Result<()>;
    fn end(&mut self) -> Result<()>;
}

/// A backup that is only looked at.
struct Nowhere;

impl Target for Nowhere {
    fn begin(&mut self, _manifest: &BackupManifest) -> Result<()> {
        Ok(())
    }

    fn member<R: Read>(&mut self, member: &Member, _from: &mut Archive<R>) -> Result<()> {
        place_of(&member.path).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads all members, the first and last of which are the archive's own.
fn walk(
    from: impl Read,
    key: &Key,
    target: &mut impl Target,
) -> Result<(BackupManifest, BackupContents)> {
    let mut archive = Reader::new(Opener::new(from, key)?);
    let wrong = |what: &str| unreadable(io::Error::new(io::ErrorKind::InvalidData, what));
    let first = archive.next().map_err(unreadable)?;
    let first = first.filter(|member| member.path == b"manifest.json");
    let first = first.ok_or_else(|| wrong("the backup does not begin with its manifest"))?;
    let manifest: BackupManifest = json(&first, &mut archive)?;
    if manifest.format != FORMAT {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "the backup's contents have version {}; this program knows {FORMAT}",
                manifest.format
            ),
        )
        .hint(format!("use pinfold {}", manifest.version)));
    }
    target.begin(&manifest)?;
    loop {
        let before = archive.members();
        let Some(member) = archive.next().map_err(unreadable)? else {
            return Err(wrong("the backup ends without saying so"));
        };
        if member.path != b"end.json" {
            target.member(&member, &mut archive)?;
            continue;
        }
        let contents: BackupContents = json(&member, &mut archive)?;
        let whole = contents.members == before && archive.next().map_err(unreadable)?.is_none();
        if !whole {
            return Err(wrong("the backup has other contents than it says"));
        }
        // The seal of the last chunk is checked by reading past it.
        let left = io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
        if left > 0 {
            return Err(wrong("something follows the end of the archive"));
        }
        target.end()?;
        return Ok((manifest, contents));
    }
}

fn json<T: DeserializeOwned, R: Read>(member: &Member, from: &mut Archive<R>) -> Result<T> {
    if member.content_bytes() > MAX_JSON_BYTES {
        let why = format!("a description is over {MAX_JSON_BYTES} bytes");
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    let mut text = Vec::new();
    from.read_to_end(&mut text).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|error| {
        let what = String::from_utf8_lossy(&member.path).into_owned();
        unreadable(io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}")))
    })
}

/// What a member's path means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// A file of the home, by its path there.
    HomeFile(&'a str),
    /// Part of an image layer: its name, and the path in it.
    ImageLayer(&'a str, &'a [u8]),
    /// Part of a sealed layer.
    Layer(&'a str, &'a [u8]),
    /// What is said of a disk (`false`) or snapshot (`true`) before it comes.
    Facts(&'a str, bool),
    /// Part of a disk or snapshot.
    Disk(&'a str, bool, &'a [u8]),
}

fn place_of(path: &[u8]) -> Result<Meaning<'_>> {
    let unknown = || {
        let what = pinfold_types::name::excerpt(&String::from_utf8_lossy(path));
        unreadable(io::Error::new(io::ErrorKind::InvalidData, format!("unknown contents: {what}")))
    };
    // Names of ours are plain words; what is below them is the workspace's own.
    let split = |rest: &'_ [u8]| -> Option<(usize, usize)> {
        let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        Some((end, (end + 1).min(rest.len())))
    };
    let word = |bytes: &'_ [u8]| -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(plain) && bytes[0] != b'.'
    };
    let named = |prefix: &str| -> Option<(&[u8], &[u8])> {
        let rest = path.strip_prefix(prefix.as_bytes())?;
        let (end, next) = split(rest)?;
        word(&rest[..end]).then_some((&rest[..end], &rest[next..]))
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| unknown());
    if let Some((name, rest)) = named("home/images/layers/") {
        return Ok(Meaning::ImageLayer(text(name)?, rest));
    }
    if let Some((name, rest)) = named("pool/layers/") {
        return Ok(Meaning::Layer(text(name)?, rest));
    }
    for (prefix, snapshot) in [("pool/disks/", false), ("pool/snapshots/", true)] {
        if let Some((name, rest)) = named(prefix) {
            let name = text(name)?;
            return Ok(match name.strip_suffix(".json") {
                Some(id) if rest.is_empty() => Meaning::Facts(id, snapshot),
                _ => Meaning::Disk(name, snapshot, rest),
            });
        }
    }
    let inside = path.strip_prefix(b"home/").ok_or_else(unknown)?;
    let plain = inside.split(|byte| *byte == b'/').all(word);
    if plain { Ok(Meaning::HomeFile(text(inside)?)) } else { Err(unknown()) }
}

/// A tree that is being filled.
struct Open {
    /// Prefix of its members' paths.
    prefix: Vec<u8>,
    unpacker: Unpacker,
    /// A disk, by the id it is filled under.
    disk: Option<Filling>,
}

/// A disk that is being filled.
struct Filling {
    id: String,
    snapshot: bool,
    working: String,
    limits: DiskLimits,
}

/// A new home.
struct Place {
    home: PathBuf,
    pool: Option<(Pool, PoolConfig)>,
    disks: HashSet<String>,
    open: Option<Open>,
    facts: Option<(String, bool, DiskFacts)>,
}

impl Place {
    /// A pool outside the home that this restore has made.
    fn outside(&self) -> Option<PathBuf> {
        self.pool.as_ref().and_then(|(_, config)| config.path.clone())
    }

    fn close(mut self) -> Result<()> {
        self.open = None;
        self.pool.take().map_or(Ok(()), |(pool, _)| pool.close())
    }

    fn pool(&mut self) -> Result<&Pool> {
        if self.pool.is_none() {
            let text = fs::read_to_string(self.home.join("config.toml")).unwrap_or_default();
            let config = Config::parse(&text)?.pool;
            if let Some(path) = &config.path {
                refuse_used(path).map_err(|error| Error {
                    hint: Some("its pool.path must be missing or empty; move what is there".into()),
                    ..error
                })?;
            }
            let pool = Pool::open(&config, &self.home, Mode::Root)?;
            self.pool = Some((pool, config));
        }
        Ok(&self.pool.as_ref().expect("set above").0)
    }

    fn home_file<R: Read>(&self, name: &str, from: &mut Archive<R>) -> Result<()> {
        let path = self.home.join(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at(parent))?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.map_err(at(&path))?;
        io::copy(from, &mut file).map_err(unreadable)?;
        file.flush().and_then(|()| file.sync_all()).map_err(at(&path))
    }

    /// Ends the tree that is being filled, and gives its disk its name.
    fn finish_open(&mut self) -> Result<()> {
        let Some(Open { unpacker, disk, .. }) = self.open.take() else { return Ok(()) };
        unpacker.finish().map_err(unreadable)?;
        match disk {
            Some(filling) => self.finish_disk(&filling),
            None => Ok(()),
        }
    }

    fn finish_disk(&mut self, filling: &Filling) -> Result<()> {
        let pool = self.pool()?;
        if filling.snapshot {
            pool.snapshot(&filling.working, &filling.id, Mounted::No)?;
            pool.remove(&filling.working)?;
        } else if filling.limits != DiskLimits::default() {
            pool.set_limits(&filling.id, &filling.limits)?;
        }
        self.disks.insert(filling.id.clone());
        Ok(())
    }

    /// Makes the disk of the last facts, which holds nothing when no tree follows.
    fn begin_disk(&mut self) -> Result<Option<(Filling, PathBuf)>> {
        let Some((id, snapshot, facts)) = self.facts.take() else { return Ok(None) };
        let working = if snapshot { WorkspaceId::generate().to_string() } else { id.clone() };
        let disk = self.pool()?.restore_disk(&working, &facts.layers)?;
        let limits = DiskLimits { bytes: facts.bytes, inodes: facts.inodes };
        Ok(Some((Filling { id, snapshot, working, limits }, disk.path.join("upper"))))
    }

    /// Ends whatever came before, a disk without contents among it.
    fn settle_before(&mut self) -> Result<()> {
        self.finish_open()?;
        if let Some((filling, _)) = self.begin_disk()? {
            self.finish_disk(&filling)?;
        }
        Ok(())
    }

    fn open_tree(&mut self, prefix: &str, root: &Path, disk: Option<Filling>) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at(root)(error));
            }
            _ => {}
        }
        let unpacker = Unpacker::new(root).map_err(at(root))?;
        self.open = Some(Open { prefix: prefix.as_bytes().to_vec(), unpacker, disk });
        Ok(())
    }

    /// Puts a member into the tree that is open.
    fn unpack<R: Read>(&mut self, member: &Member, from: &mut Archive<R>) -> Result<()> {
        let Some(Open { prefix, unpacker, .. }) = &mut self.open else {
            return Err(Error::internal("no tree is open"));
        };
        let inside = |path: &[u8]| -> Option<Vec<u8>> {
            let rest = path.strip_prefix(prefix.as_slice())?;
            if rest.is_empty() {
                Some(Vec::new())
            } else {
                rest.strip_prefix(b"/").map(<[u8]>::to_vec)
            }
        };
        let path = inside(&member.path).ok_or_else(|| Error::internal("of another tree"))?;
        unpacker.place(member, &path, inside, from).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::StorageFull => unreadable(error),
            kind => {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let name = pinfold_types::name::excerpt(&name);
                unreadable(io::Error::new(kind, format!("{name}: {error}")))
            }
        })
    }

    fn is_open(&self, prefix: &str) -> bool {
        self.open.as_ref().is_some_and(|open| open.prefix == prefix.as_bytes())
    }
}

impl Target for Place {
    fn begin(&mut self, manifest: &BackupManifest) -> Result<()> {
        let user = !rustix::process::geteuid().is_root();
        if user && !(manifest.without_disks && manifest.without_images) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "a backup with disks or image layers is restored by root: they have many owners",
            ));
        }
        Ok(())
    }

    fn member<R: Read>(&mut self, member: &Member, from: &mut Archive<R>) -> Result<()> {
        match place_of(&member.path)? {
            Meaning::HomeFile(name) if matches!(member.kind, Kind::File { .. }) => {
                self.settle_before()?;
                self.home_file(name, from)
            }
            Meaning::HomeFile(_) => Err(Error::internal("a home has files only")),
            Meaning::ImageLayer(name, _) => {
                let prefix = format!("home/images/layers/{name}");
                if !self.is_open(&prefix) {
                    self.settle_before()?;
                    let layers = self.home.join("images/layers");
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&layers)
                        .map_err(at(&layers))?;
                    self.open_tree(&prefix, &layers.join(name), None)?;
                }
                self.unpack(member, from)
            }
            Meaning::Layer(name, _) => {
                let prefix = format!("pool/layers/{name}/upper");
                if !self.is_open(&prefix) {
                    self.settle_before()?;
                    let directory = self.pool()?.restore_layer(name)?;
                    self.open_tree(&prefix, &directory.join("upper"), None)?;
                }
                self.unpack(member, from)
            }
            Meaning::Facts(id, snapshot) => {
                self.settle_before()?;
                let facts: DiskFacts = json(member, from)?;
                self.facts = Some((id.to_owned(), snapshot, facts));
                Ok(())
            }
            Meaning::Disk(id, snapshot, _) => {
                let place = if snapshot { "snapshots" } else { "disks" };
                let prefix = format!("pool/{place}/{id}/upper");
                if !self.is_open(&prefix) {
                    self.finish_open()?;
                    let begun = self.begin_disk()?;
                    let begun = begun.filter(|(of, _)| of.id == id && of.snapshot == snapshot);
                    let (filling, root) = begun.ok_or_else(|| {
                        let why = format!("disk {id} comes without what is said of it");
                        unreadable(io::Error::new(io::ErrorKind::InvalidData, why))
                    })?;
                    self.open_tree(&prefix, &root, Some(filling))?;
                }
                self.unpack(member, from)
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        self.settle_before()?;
        let path = self.home.clone();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(at(&path))
    }
}

/// Makes the records say what is true in a new home: nothing runs. A recorded process, which may
/// well live on the machine that the backup is of, is never looked for.
async fn settle(
    home: &Path,
    manifest: &BackupManifest,
    disks: &HashSet<String>,
) -> Result<Vec<String>> {
    let store = Store::open(home.join("state.db")).await?;
    let mut dropped = Vec::new();
    for mut row in store.workspaces().await? {
        use WorkspaceState as S;
        let id = row.id.to_string();
        let gone = matches!(row.state, S::Destroying | S::Destroyed)
            || row.spec.ephemeral
            || (!manifest.without_disks && row.state != S::Failed && !disks.contains(&id));
        if gone {
            store.delete_workspace(row.id).await?;
            dropped.push(id);
            continue;
        }
        if row.state != S::Failed {
            row.state = S::Stopped;
        }
        let reason = row.reason.take();
        ended_boot(&mut row, reason);
        store.update_workspace(&row).await?;
    }
    for row in store.snapshots(None).await? {
        let id = row.id.to_string();
        if !manifest.without_disks && !disks.contains(&id) {
            store.delete_snapshot(row.id).await?;
            dropped.push(id);
        }
    }
    store.close().await;
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_one_thing_or_nothing() {
        let means = |path: &'static str| place_of(path.as_bytes());
        assert_eq!(means("home/keys/a.key").expect("known"), Meaning::HomeFile("keys/a.key"));
        assert_eq!(
            means("home/images/layers/ab/fs/x y").expect("known"),
            Meaning::ImageLayer("ab", b"fs/x y")
        );
        assert_eq!(means("pool/layers/l/upper").expect("known"), Meaning::Layer("l", b"upper"));
        assert_eq!(means("pool/disks/w.json").expect("known"), Meaning::Facts("w", false));
        assert_eq!(
            means("pool/snapshots/s/upper/0").expect("known"),
            Meaning::Disk("s", true, b"upper/0")
        );
        for path in ["", "home/", "home/../etc/passwd", "/etc/passwd", "pool/x", "home/.ssh/a"] {
            assert!(means(path).is_err(), "{path}");
        }
    }
}
