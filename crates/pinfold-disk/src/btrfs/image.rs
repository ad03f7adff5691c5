//! A btrfs filesystem in a file: made, attached to a loop device, mounted, and found again.
//!
//! The file gets its name only when it is formatted and on the disk, so one that bears the name
//! is whole; a half-made one bears another and is made anew. A file that bears the name and holds
//! anything but our filesystem is never touched.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pinfold_sys::loopdev;
use rustix::mount::MountFlags;

use crate::{
    error::{At, DiskError},
    mounts,
};

/// The filesystem label that says the file is ours.
pub(crate) const LABEL: &str = "pinfold-pool";
/// The smallest file that btrfs works well in.
pub(crate) const MIN_BYTES: u64 = 256 << 20;
const MAX_BYTES: u64 = 1 << 40;
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the first superblock lies, and in it the magic and the label.
const SUPERBLOCK_AT: u64 = 64 << 10;
const MAGIC_AT: usize = 0x40;
const LABEL_AT: usize = 0x12B;
const LABEL_BYTES: usize = 256;
/// Most loop devices looked at.
const MAX_DEVICES: usize = 65_536;

/// A mounted pool file.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    pub(crate) file: PathBuf,
    pub(crate) device: String,
    pub(crate) direct_io: bool,
    /// It was mounted before this process opened it.
    pub(crate) adopted: bool,
}

/// Whether this machine can do it: the kernel's btrfs and loop devices, and `mkfs.btrfs` unless
/// the file is there already.
pub(crate) fn available(file: &Path) -> Result<(), DiskError> {
    if !std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "btrfs"))
    {
        return Err(DiskError::Unavailable {
            what: "this kernel has no btrfs".into(),
            mend: "modprobe btrfs".into(),
        });
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err(DiskError::Unavailable {
            what: "this machine has no loop devices".into(),
            mend: "modprobe loop".into(),
        });
    }
    if file.exists() || mkfs_program().is_some() { Ok(()) } else { Err(DiskError::NoMkfs) }
}

fn mkfs_program() -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join("mkfs.btrfs")).find(|path| path.is_file())
}

/// Makes what is missing until `file` is mounted at `target`.
pub(crate) fn ensure(file: &Path, target: &Path, bytes: Option<u64>) -> Result<Mounted, DiskError> {
    match std::fs::create_dir(target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).at("make", target.display());
        }
        _ => {}
    }
    let target = &target.canonicalize().at("find", target.display())?;
    if let Some(mount) = mounts::at(target)? {
        return adopt(file, target, &mount);
    }
    ensure_file(file, bytes)?;
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc_cloexec())
        .open(file)
        .at("open", file.display())?;
    // The same file on two devices would be one filesystem written twice.
    let hold;
    let (device, direct_io) = if let Some(device) = attached(file)? {
        let direct_io = direct_io_of(&device);
        (device, direct_io)
    } else {
        hold = loopdev::attach(open.as_fd(), false, true)
            .at("attach a loop device to", file.display())?;
        (hold.path.clone(), hold.direct_io)
    };
    // noatime: reading must not write, least of all into every clone. Barriers and copy-on-write
    // stay on: what a workspace has fsynced survives a power loss.
    rustix::mount::mount(
        &device,
        target,
        "btrfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
        None,
    )
    .at("mount", target.display())?;
    Ok(Mounted {
        file: file.into(),
        device: device.display().to_string(),
        direct_io,
        adopted: false,
    })
}

fn libc_cloexec() -> i32 {
    i32::try_from(rustix::fs::OFlags::CLOEXEC.bits()).expect("an open flag fits")
}

fn adopt(file: &Path, target: &Path, mount: &mounts::Mount) -> Result<Mounted, DiskError> {
    let ours = mount.kind == "btrfs"
        && backing_file(&mount.source).is_some_and(|backing| same_file(&backing, file));
    if !ours {
        return Err(DiskError::ForeignMount {
            path: target.into(),
            what: format!("{} ({})", mount.source, mount.kind),
        });
    }
    if mount.options.split(',').any(|option| option == "ro") {
        return Err(DiskError::Unavailable {
            what: format!("the pool at {} is mounted read-only", target.display()),
            mend: "look for btrfs errors in `dmesg`; a full disk below the pool file is the usual \
                   cause: free some, unmount the pool and start again"
                .into(),
        });
    }
    let direct_io = direct_io_of(Path::new(&mount.source));
    Ok(Mounted { file: file.into(), device: mount.source.clone(), direct_io, adopted: true })
}

fn direct_io_of(device: &Path) -> bool {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    std::fs::read_to_string(format!("/sys/block/{name}/loop/dio"))
        .is_ok_and(|text| text.trim() == "1")
}

/// The file behind the loop device `/dev/loopN`.
fn backing_file(device: &str) -> Option<PathBuf> {
    let name = device.strip_prefix("/dev/").filter(|name| name.starts_with("loop"))?;
    let text = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.strip_suffix('\n').unwrap_or(&text)))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The loop device that `file` is attached to already.
fn attached(file: &Path) -> Result<Option<PathBuf>, DiskError> {
    let devices = std::fs::read_dir("/sys/block").at("list", "/sys/block")?;
    for entry in devices.take(MAX_DEVICES).flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else { continue };
        let device = format!("/dev/{name}");
        if backing_file(&device).is_some_and(|backing| same_file(&backing, file)) {
            return Ok(Some(device.into()));
        }
    }
    Ok(None)
}

/// Makes and formats `file` unless it is there.
fn ensure_file(file: &Path, bytes: Option<u64>) -> Result<(), DiskError> {
    match inspect(file)? {
        Contents::Pool => return Ok(()),
        Contents::Foreign(what) => {
            return Err(DiskError::ForeignFile { path: file.into(), what });
        }
        Contents::Nothing => {}
    }
    let parent = file.parent().unwrap_or(Path::new("/"));
    let space = rustix::fs::statvfs(parent).at("read the free space of", parent.display())?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let bytes = bytes.unwrap_or_else(|| (free / 2).min(MAX_BYTES));
    if bytes < MIN_BYTES {
        return Err(DiskError::Unavailable {
            what: format!("a pool file of {bytes} bytes is below the least of {MIN_BYTES}"),
            mend: "free space below $PINFOLD_HOME, or set pool.loop_bytes".into(),
        });
    }
    let half_made = file.with_extension("btrfs.new");
    match std::fs::remove_file(&half_made) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).at("remove", half_made.display());
        }
        _ => {}
    }
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half_made)
        .at("make", half_made.display())?;
    // On btrfs: copy-on-write below copy-on-write only costs. Elsewhere there is no such flag.
    if let Ok(flags) = rustix::fs::ioctl_getflags(&made) {
        let _ = rustix::fs::ioctl_setflags(&made, flags | rustix::fs::IFlags::NOCOW);
    }
    made.set_len(bytes).at("size", half_made.display())?;
    format(&half_made)?;
    made.sync_all().at("sync", half_made.display())?;
    std::fs::rename(&half_made, file).at("rename", half_made.display())?;
    File::open(parent).and_then(|parent| parent.sync_all()).at("sync", parent.display())
}

fn format(file: &Path) -> Result<(), DiskError> {
    let program = mkfs_program().ok_or(DiskError::NoMkfs)?;
    // One copy of the metadata: both would lie in the same file on the same disk, and every
    // commit, and so every snapshot, would write twice.
    let mut child = Command::new(program)
        .args(["--quiet", "--label", LABEL, "--metadata", "single", "--data", "single", "--"])
        .arg(file)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .at("run mkfs.btrfs on", file.display())?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut bounded = Vec::new();
        stderr.take(64 << 10).read_to_end(&mut bounded).at("read from", "mkfs.btrfs")?;
        said = String::from_utf8_lossy(&bounded).trim().chars().take(500).collect();
    }
    let status = child.wait().at("wait for", "mkfs.btrfs")?;
    if status.success() { Ok(()) } else { Err(DiskError::Mkfs { path: file.into(), said }) }
}

enum Contents {
    Pool,
    Nothing,
    Foreign(String),
}

/// Looks at the first superblock.
fn inspect(file: &Path) -> Result<Contents, DiskError> {
    let open = match File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Contents::Nothing);
        }
        other => other.at("open", file.display())?,
    };
    let meta = open.metadata().at("look at", file.display())?;
    if !meta.is_file() {
        return Ok(Contents::Foreign("it is not a regular file".into()));
    }
    // No block was ever written: there is nothing to lose.
    if meta.blocks() == 0 {
        return Ok(Contents::Nothing);
    }
    let mut superblock = [0_u8; 4096];
    if open.read_exact_at(&mut superblock, SUPERBLOCK_AT).is_err()
        || &superblock[MAGIC_AT..MAGIC_AT + 8] != b"_BHRfS_M"
    {
        return Ok(Contents::Foreign("it holds no btrfs".into()));
    }
    let label = &superblock[LABEL_AT..LABEL_AT + LABEL_BYTES];
    let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
    if label == LABEL.as_bytes() {
        Ok(Contents::Pool)
    } else {
        Ok(Contents::Foreign(format!(
            "it is a btrfs labelled {:?}",
            pinfold_types::name::excerpt(&String::from_utf8_lossy(label))
        )))
    }
}
