//! Which method a pool has: what the configuration says, or the best that is there.

use std::path::{Path, PathBuf};

use pinfold_types::{
    Mode,
    config::{PoolConfig, PoolKind},
};
use rustix::fs::{FlockOperation, OFlags};

use crate::{
    backend::Backend,
    btrfs::{Btrfs, image},
    error::{At, DiskError},
    layout::Layout,
    tree::{self, Tree},
};

/// The file in a pool that says what keeps it, so that a pool with disks is never opened as
/// another kind.
const MARKER: &str = "pinfold-pool";
/// How long another process may take to open the same pool.
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) fn open(
    config: &PoolConfig,
    home: &Path,
    mode: Mode,
) -> Result<(Layout, Box<dyn Backend>), DiskError> {
    let _lock = lock(home)?;
    let path = pool_path(config, home);
    let kind = resolve(config, home, mode)?;
    // Before anything is mounted over it.
    refuse_other(&path, kind)?;
    let (layout, backend): (Layout, Box<dyn Backend>) = match kind {
        PoolKind::BtrfsLoop => {
            let mounted = image::ensure(&image_file(home), &path, config.loop_bytes)?;
            tracing::info!(
                file = %mounted.file.display(),
                device = mounted.device,
                adopted = mounted.adopted,
                "pool mounted"
            );
            let path = path.canonicalize().at("find", path.display())?;
            let backend = Btrfs::open(&path, Some(mounted))?;
            (Layout::open(&path)?, Box::new(backend))
        }
        PoolKind::Btrfs => {
            make_directory(&path)?;
            let layout = Layout::open(&path)?;
            (layout, Box::new(Btrfs::open(&path, None)?))
        }
        PoolKind::Auto | PoolKind::Reflink | PoolKind::Plain => {
            make_directory(&path)?;
            let layout = Layout::open(&path)?;
            let backend = Tree::open(&layout, kind == PoolKind::Reflink, mode)?;
            (layout, Box::new(backend))
        }
    };
    mark(&layout, kind)?;
    Ok((layout, backend))
}

pub(crate) fn pool_path(config: &PoolConfig, home: &Path) -> PathBuf {
    config.path.clone().unwrap_or_else(|| home.join("pool"))
}

pub(crate) fn image_file(home: &Path) -> PathBuf {
    home.join("pool.btrfs")
}

/// What `kind` means here, or why it cannot be had.
pub(crate) fn resolve(config: &PoolConfig, home: &Path, mode: Mode) -> Result<PoolKind, DiskError> {
    let path = pool_path(config, home);
    // The nearest directory that exists tells the filesystem.
    let near = path.ancestors().find(|near| near.is_dir()).unwrap_or(home);
    let root = mode == Mode::Root;
    let unavailable =
        |what: String, mend: &str| Err(DiskError::Unavailable { what, mend: mend.into() });
    match config.kind {
        PoolKind::BtrfsLoop if !root => unavailable(
            "a btrfs pool file takes root to mount".into(),
            "run the server as root, or set pool.kind to auto",
        ),
        PoolKind::BtrfsLoop => {
            image::available(&image_file(home))?;
            Ok(PoolKind::BtrfsLoop)
        }
        PoolKind::Btrfs if !root => unavailable(
            "btrfs snapshots with limits take root".into(),
            "run the server as root, or set pool.kind to auto: copies on btrfs share data anyway",
        ),
        PoolKind::Btrfs if !is_btrfs(near) => unavailable(
            format!("{} is not on btrfs", near.display()),
            "set pool.path to a directory on btrfs, or pool.kind to btrfs-loop",
        ),
        PoolKind::Reflink if !tree::reflinks(near) => unavailable(
            format!("the filesystem of {} cannot share data between files", near.display()),
            "set pool.path to a directory on XFS with reflink=1 or btrfs",
        ),
        PoolKind::Auto => Ok(best(config, home, near, root)),
        kind => Ok(kind),
    }
}

fn best(config: &PoolConfig, home: &Path, near: &Path, root: bool) -> PoolKind {
    let directories = if tree::reflinks(near) { PoolKind::Reflink } else { PoolKind::Plain };
    if !root {
        return directories;
    }
    // A pool that holds disks keeps its kind, whatever could be better by now.
    match marked(&pool_path(config, home)) {
        Some(PoolKind::BtrfsLoop) | None => {}
        Some(kind) => return kind,
    }
    if image_file(home).exists() {
        return PoolKind::BtrfsLoop;
    }
    if config.path.is_some() && is_btrfs(near) {
        return PoolKind::Btrfs;
    }
    if image::available(&image_file(home)).is_ok() { PoolKind::BtrfsLoop } else { directories }
}

fn is_btrfs(path: &Path) -> bool {
    rustix::fs::statfs(path)
        .is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(pinfold_sys::btrfs::SUPER_MAGIC))
}

const fn word(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Auto | PoolKind::Plain => "plain",
        PoolKind::Btrfs => "btrfs",
        PoolKind::BtrfsLoop => "btrfs-loop",
        PoolKind::Reflink => "reflink",
    }
}

fn marked(path: &Path) -> Option<PoolKind> {
    let text = std::fs::read_to_string(path.join(MARKER)).ok()?;
    [PoolKind::Plain, PoolKind::Btrfs, PoolKind::BtrfsLoop, PoolKind::Reflink]
        .into_iter()
        .find(|kind| word(*kind) == text.trim())
}

/// Refuses a pool that was made as another kind.
fn refuse_other(path: &Path, kind: PoolKind) -> Result<(), DiskError> {
    // Directories are directories: only how they are copied differs.
    let directories = |kind| matches!(kind, PoolKind::Plain | PoolKind::Reflink | PoolKind::Auto);
    match marked(path) {
        None => Ok(()),
        Some(before) if before == kind || (directories(before) && directories(kind)) => Ok(()),
        Some(before) => Err(DiskError::Unavailable {
            what: format!("the pool at {} was made as {}", path.display(), word(before)),
            mend: format!("set pool.kind to {}, or pool.path to a new directory", word(before)),
        }),
    }
}

/// Writes the marker of a new pool.
fn mark(layout: &Layout, kind: PoolKind) -> Result<(), DiskError> {
    refuse_other(&layout.path, kind)?;
    let path = layout.path.join(MARKER);
    if marked(&layout.path).is_some() {
        return Ok(());
    }
    std::fs::write(&path, word(kind)).at("write", path.display())
}

fn make_directory(path: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("make", path.display())
}

/// One process at a time opens a pool: two must not format or mount the same file.
fn lock(home: &Path) -> Result<std::os::fd::OwnedFd, DiskError> {
    let path = home.join("pool.lock");
    let file = rustix::fs::open(
        &path,
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .at("open", path.display())?;
    let until = std::time::Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if std::time::Instant::now() < until => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => return Err(error).at("lock", path.display()),
        }
    }
}
