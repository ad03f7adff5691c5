//! Project quotas: a directory tree with its own count and limit of bytes and inodes, on XFS and
//! on ext4 with the `project` feature (quotactl(2), `ioctl_xfs_fsgetxattr(2)`).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const FS_IOC_FSGETXATTR: u64 = 0x801C_581F;
const FS_IOC_FSSETXATTR: u64 = 0x401C_5820;
/// New files below take the directory's project.
const PROJECT_INHERIT: u32 = 0x200;
const PROJECT_QUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = 0x5803;
const Q_XSETQLIM: u32 = 0x5804;
const MASK_HARD: u16 = (1 << 1) | (1 << 3);
/// Bytes of one basic block of these calls, whatever the filesystem's block size.
const BASIC_BLOCK: u64 = 512;

#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    field_mask: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    inode_timer: i32,
    block_timer: i32,
    inode_warnings: u16,
    block_warnings: u16,
    timers_high: [i8; 4],
    realtime_hard: u64,
    realtime_soft: u64,
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding3: i16,
    padding4: [u8; 8],
}

const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<DiskQuota>() == 112);

/// Count and limits of one project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectQuota {
    /// Bytes in use.
    pub bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Most bytes; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Most inodes; `None` is no limit.
    pub max_inodes: Option<u64>,
}

/// The project a file or directory belongs to; 0 is none.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Puts a directory into `project`, and all that will be made below it.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= PROJECT_INHERIT;
    // SAFETY: `attributes` is the structure this request reads and outlives the call.
    let done =
        unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw mut attributes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: `attributes` is the structure this request fills and outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

/// Sets the hard limits of `project` on the filesystem that `inside` lies on (Linux 5.14).
pub fn set_limits(
    inside: BorrowedFd<'_>,
    project: u32,
    max_bytes: Option<u64>,
    max_inodes: Option<u64>,
) -> io::Result<()> {
    let mut quota = DiskQuota {
        version: 1,
        flags: i8::try_from(PROJECT_QUOTA).expect("2 fits"),
        field_mask: MASK_HARD,
        id: project,
        block_hard: max_bytes.map_or(0, |bytes| bytes.div_ceil(BASIC_BLOCK)),
        inode_hard: max_inodes.unwrap_or(0),
        ..DiskQuota::default()
    };
    control(inside, Q_XSETQLIM, project, &mut quota)
}

/// Count and limits of `project`. A project that nothing ever belonged to counts zero.
pub fn get(inside: BorrowedFd<'_>, project: u32) -> io::Result<ProjectQuota> {
    let mut quota = DiskQuota::default();
    match control(inside, Q_XGETQUOTA, project, &mut quota) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(ProjectQuota::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(ProjectQuota {
            bytes: quota.blocks.saturating_mul(BASIC_BLOCK),
            inodes: quota.inodes,
            max_bytes: (quota.block_hard > 0).then(|| quota.block_hard.saturating_mul(BASIC_BLOCK)),
            max_inodes: (quota.inode_hard > 0).then_some(quota.inode_hard),
        }),
    }
}

fn control(
    inside: BorrowedFd<'_>,
    command: u32,
    project: u32,
    quota: &mut DiskQuota,
) -> io::Result<()> {
    // SAFETY: quotactl_fd takes a descriptor, a command, an id and the structure of these two
    // commands, which outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            inside.as_raw_fd(),
            (command << 8) | PROJECT_QUOTA,
            project,
            std::ptr::from_mut(quota),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
