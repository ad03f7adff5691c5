//! A home of its own for every test, on the filesystem that the test is about.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use pinfold_disk::{DiskLimits, Pool};
use pinfold_types::{
    Mode,
    config::{PoolConfig, PoolKind},
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A filesystem to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    BtrfsLoop,
    Btrfs,
    Xfs,
    Ext4,
}

/// A home directory with the pool's configuration. Unmounts and removes everything in the end,
/// also when the test fails.
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) config: PoolConfig,
    pub(crate) ground: Ground,
    mounted: Option<PathBuf>,
    _root: tempfile::TempDir,
}

pub(crate) fn tool(name: &str, package: &str) {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(name).is_file());
    assert!(found, "{name} is missing: apt-get install {package} (`make test` does)");
}

/// Leaves the mounts of the machine: what is mounted from here on is seen by this thread and its
/// children only, and is gone when they are.
pub(crate) fn private_mounts() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests mount filesystems: run them as root"
    );
    #[expect(deprecated, reason = "unsafe is only what unshares descriptors: this does not")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).expect("a mount namespace");
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", all).expect("private mounts");
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Home {
    pub(crate) fn new(ground: Ground) -> Self {
        private_mounts();
        tool("mkfs.btrfs", "btrfs-progs");
        let root = tempfile::Builder::new().prefix("pinfold-disk-").tempdir().expect("a directory");
        let (kind, make) = match ground {
            Ground::BtrfsLoop => (PoolKind::BtrfsLoop, None),
            Ground::Btrfs => (PoolKind::Btrfs, Some(("mkfs.btrfs", "btrfs", vec!["--quiet"]))),
            Ground::Xfs => {
                tool("mkfs.xfs", "xfsprogs");
                (PoolKind::Reflink, Some(("mkfs.xfs", "xfs", vec!["-q", "-m", "reflink=1"])))
            }
            Ground::Ext4 => {
                tool("mkfs.ext4", "e2fsprogs");
                (PoolKind::Plain, Some(("mkfs.ext4", "ext4", vec!["-q"])))
            }
        };
        let (path, mounted) = match make {
            None => (root.path().join("home"), None),
            Some((program, filesystem, options)) => {
                let image = root.path().join("image");
                let file = std::fs::File::create(&image).expect("an image");
                file.set_len(4 << 30).expect("sparse");
                drop(file);
                let mut arguments = options;
                let image_text = image.to_str().expect("a plain path").to_owned();
                arguments.push(&image_text);
                run(program, &arguments);
                let target = root.path().join("fs");
                std::fs::create_dir(&target).expect("a mount point");
                let file =
                    std::fs::OpenOptions::new().read(true).write(true).open(&image).expect("open");
                let device =
                    pinfold_sys::loopdev::attach(std::os::fd::AsFd::as_fd(&file), false, false)
                        .expect("a loop device");
                rustix::mount::mount(
                    &device.path,
                    &target,
                    filesystem,
                    MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID,
                    None,
                )
                .expect("mount");
                (target.join("home"), Some(target))
            }
        };
        std::fs::create_dir(&path).expect("a home");
        let config =
            PoolConfig { kind, path: None, loop_bytes: Some(4 << 30), min_free_bytes: 64 << 20 };
        Self { path, config, ground, mounted, _root: root }
    }

    pub(crate) fn open(&self) -> Pool {
        let pool = Pool::open(&self.config, &self.path, Mode::Root).expect("the pool opens");
        if self.ground == Ground::Btrfs && pool.enforceable(LIMIT).is_err() {
            let root = std::fs::File::open(self.path.join("pool")).expect("the pool");
            pinfold_sys::btrfs::enable_quota(
                std::os::fd::AsFd::as_fd(&root),
                pinfold_sys::btrfs::QuotaMode::Simple,
            )
            .expect("quotas");
            drop(pool);
            return Pool::open(&self.config, &self.path, Mode::Root).expect("the pool opens");
        }
        pool
    }

    pub(crate) fn pool_path(&self) -> PathBuf {
        self.path.join("pool")
    }

    /// The loop device that the pool file is attached to.
    pub(crate) fn device(&self) -> Option<String> {
        let file = self.path.join("pool.btrfs");
        std::fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            (Path::new(backing.trim()) == file)
                .then(|| entry.file_name().to_string_lossy().into_owned())
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for target in [Some(self.pool_path()), self.mounted.clone()].into_iter().flatten() {
            // Not mounted, or already unmounted: either is what is wanted.
            while rustix::mount::unmount(&target, UnmountFlags::DETACH).is_ok() {}
        }
    }
}

pub(crate) const LIMIT: pinfold_types::limits::LimitKind = pinfold_types::limits::LimitKind::Disk;

/// No limits where none can be enforced, else this many bytes.
pub(crate) fn limits(pool: &Pool, bytes: u64) -> DiskLimits {
    let bytes = pool.enforceable(LIMIT).is_ok().then_some(bytes);
    DiskLimits { bytes, inodes: None }
}

/// Waits for something that happens in the background, at most a minute.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !is() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn timed<T>(times: &mut Vec<Duration>, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = what();
    times.push(start.elapsed());
    answer
}

/// Writes bytes that do not compress or merge.
pub(crate) fn write(path: &Path, bytes: usize) -> std::io::Result<()> {
    use std::io::Write;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0_u8; 64 << 10];
    for chunk in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    let mut file = std::fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        file.write_all(&block[..now])?;
        left -= now;
    }
    file.sync_all()
}

/// Where a disk shows `path` (such as `0/file`): in its own slots, or in the topmost of its sealed
/// layers that has it.
pub(crate) fn shown(disk: &pinfold_disk::Disk, path: &str) -> Option<PathBuf> {
    let sealed = disk.sealed().expect("a list");
    let layers = sealed.into_iter().map(|layer| layer.path);
    std::iter::once(disk.path.clone())
        .chain(layers)
        .map(|layer| layer.join("upper").join(path))
        .find(|path| path.symlink_metadata().is_ok())
}

/// The text of a file of a disk, wherever it lies.
pub(crate) fn text(disk: &pinfold_disk::Disk, path: &str) -> String {
    let path = shown(disk, path).expect("it is shown");
    std::fs::read_to_string(path).expect("read")
}
