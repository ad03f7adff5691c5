//! btrfs ioctls: subvolumes, snapshots, quota groups and bounded tree search.
//!
//! The structures are those of `linux/btrfs.h` and `linux/btrfs_tree.h`; numbers inside tree items
//! are little-endian, the search headers are in the CPU's order. See btrfs-ioctl(2) and
//! btrfs-qgroup(8). Everything that searches trees or touches quotas needs `CAP_SYS_ADMIN`.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

mod search;

use search::{Range, number, search};

/// `f_type` of statfs(2) on btrfs.
pub const SUPER_MAGIC: u64 = 0x9123_683E;
/// Inode number of every subvolume's root directory.
pub const SUBVOLUME_INODE: u64 = 256;
/// Longest name of a subvolume, in bytes.
pub const NAME_MAX: usize = 255;

const NAME_FIELD: usize = 4040;
const FLAG_READ_ONLY: u64 = 1 << 1;
const FLAG_QGROUP_INHERIT: u64 = 1 << 2;
const INHERIT_SET_LIMITS: u64 = 1;
const LIMIT_MAX_RFER: u64 = 1;
const LIMIT_RSV_RFER: u64 = 1 << 2;
const LIMIT_RSV_EXCL: u64 = 1 << 3;

const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const ROOT_ITEM: u32 = 132;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
const STATUS_FLAG_INCONSISTENT: u64 = 1 << 2;
const STATUS_FLAG_SIMPLE: u64 = 1 << 3;

const fn request(direction: u64, number: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | (0x94 << 8) | number
}
const WRITE: u64 = 1;
const READ: u64 = 2;
const SNAP_CREATE_V2: u64 = request(WRITE, 23, size_of::<VolumeArgs>());
const SUBVOL_CREATE_V2: u64 = request(WRITE, 24, size_of::<VolumeArgs>());
const SNAP_DESTROY_V2: u64 = request(WRITE, 63, size_of::<VolumeArgs>());
const SUBVOL_SETFLAGS: u64 = request(WRITE, 26, 8);
const INO_LOOKUP: u64 = request(READ | WRITE, 18, size_of::<LookupArgs>());
const QUOTA_CTL: u64 = request(READ | WRITE, 40, size_of::<QuotaArgs>());
const QGROUP_CREATE: u64 = request(WRITE, 42, size_of::<QgroupCreateArgs>());
const QGROUP_LIMIT_SET: u64 = request(READ, 43, size_of::<QgroupLimitArgs>());
const QUOTA_RESCAN_WAIT: u64 = request(0, 46, 0);
const FS_INFO: u64 = request(READ, 31, size_of::<FsInfoArgs>());
const SYNC: u64 = request(0, 8, 0);
const WAIT_SYNC: u64 = request(WRITE, 22, 8);
const START_SYNC: u64 = request(READ, 24, 8);

#[repr(C)]
struct VolumeArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    inherit_size: u64,
    inherit: *mut Inherit,
    unused: [u64; 2],
    name: [u8; NAME_FIELD],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LimitFields {
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

#[repr(C)]
struct Inherit {
    flags: u64,
    counts: [u64; 3],
    limit: LimitFields,
}

#[repr(C)]
struct QgroupLimitArgs {
    qgroup: u64,
    limit: LimitFields,
}

#[repr(C)]
struct QgroupCreateArgs {
    create: u64,
    qgroup: u64,
}

#[repr(C)]
struct QuotaArgs {
    command: u64,
    status: u64,
}

#[repr(C)]
struct LookupArgs {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct FsInfoArgs {
    max_id: u64,
    devices: u64,
    uuid: [u8; 16],
    rest: [u8; 992],
}

const _: () = assert!(size_of::<VolumeArgs>() == 4096 && size_of::<LookupArgs>() == 4096);
const _: () = assert!(size_of::<FsInfoArgs>() == 1024 && size_of::<Inherit>() == 72);

/// How a filesystem counts what a subvolume uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Every extent's sharing is followed: exact, and dear when snapshots are many.
    Full,
    /// An extent is charged to the subvolume that wrote it, until it is freed (Linux 6.7).
    Simple,
}

/// The state of a filesystem's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// How it counts.
    pub mode: QuotaMode,
    /// The kernel says its numbers cannot be trusted until a rescan (full mode only).
    pub inconsistent: bool,
}

/// Limit of one subvolume's quota group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QgroupLimit {
    /// Most bytes charged; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Two numbers that the kernel stores with the limit and never reads (`rsv_rfer` and
    /// `rsv_excl`, reserved in the format since 2011): what is set here comes and goes with the
    /// subvolume in one step.
    pub notes: [Option<u64>; 2],
}

/// What the quota tree holds about one subvolume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QgroupUsage {
    /// Bytes reachable (full) or charged (simple) at the last commit.
    pub referenced: u64,
    /// Bytes nobody else reaches (full) or charged (simple) at the last commit.
    pub exclusive: u64,
    /// Its limit.
    pub limit: QgroupLimit,
}

impl QgroupLimit {
    fn fields(self) -> LimitFields {
        // A flag with the value u64::MAX clears that limit (the kernel's CLEAR_VALUE).
        LimitFields {
            flags: LIMIT_MAX_RFER | LIMIT_RSV_RFER | LIMIT_RSV_EXCL,
            max_rfer: self.max_bytes.unwrap_or(u64::MAX),
            max_excl: 0,
            rsv_rfer: self.notes[0].unwrap_or(u64::MAX),
            rsv_excl: self.notes[1].unwrap_or(u64::MAX),
        }
    }

    /// At creation there is nothing to clear, and the clear value would be taken as a number.
    fn fresh_fields(self) -> LimitFields {
        let mut fields = LimitFields::default();
        if let Some(bytes) = self.max_bytes {
            fields.flags |= LIMIT_MAX_RFER;
            fields.max_rfer = bytes;
        }
        if let Some(note) = self.notes[0] {
            fields.flags |= LIMIT_RSV_RFER;
            fields.rsv_rfer = note;
        }
        if let Some(note) = self.notes[1] {
            fields.flags |= LIMIT_RSV_EXCL;
            fields.rsv_excl = note;
        }
        fields
    }
}

fn call<T>(fd: BorrowedFd<'_>, request: u64, argument: *mut T) -> io::Result<i32> {
    // SAFETY: every caller passes the structure whose size is encoded in `request`, and the
    // pointer is valid for reads and writes of that size for the length of the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument.cast::<c_void>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn volume_args(name: &str) -> io::Result<Box<VolumeArgs>> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_MAX || bytes.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut args = Box::new(VolumeArgs {
        fd: 0,
        transid: 0,
        flags: 0,
        inherit_size: 0,
        inherit: std::ptr::null_mut(),
        unused: [0; 2],
        name: [0; NAME_FIELD],
    });
    args.name[..bytes.len()].copy_from_slice(bytes);
    Ok(args)
}

fn make(
    directory: BorrowedFd<'_>,
    number: u64,
    mut args: Box<VolumeArgs>,
    limit: Option<QgroupLimit>,
) -> io::Result<()> {
    let mut inherit = Inherit { flags: 0, counts: [0; 3], limit: LimitFields::default() };
    if let Some(limit) = limit {
        inherit.flags = INHERIT_SET_LIMITS;
        inherit.limit = limit.fresh_fields();
        args.flags |= FLAG_QGROUP_INHERIT;
        args.inherit_size = size_of::<Inherit>() as u64;
        args.inherit = &raw mut inherit;
    }
    call(directory, number, &raw mut *args).map(drop)
}

/// Makes an empty subvolume `name` in `directory`. With `limit` its quota group has that limit
/// from its first instant.
pub fn create_subvolume(
    directory: BorrowedFd<'_>,
    name: &str,
    limit: Option<QgroupLimit>,
) -> io::Result<()> {
    make(directory, SUBVOL_CREATE_V2, volume_args(name)?, limit)
}

/// Makes a snapshot `name` in `directory` of the subvolume whose root is `source`. It is on the
/// disk when this returns: the kernel commits the transaction.
pub fn snapshot(
    directory: BorrowedFd<'_>,
    name: &str,
    source: BorrowedFd<'_>,
    read_only: bool,
    limit: Option<QgroupLimit>,
) -> io::Result<()> {
    let mut args = volume_args(name)?;
    args.fd = i64::from(source.as_raw_fd());
    if read_only {
        args.flags |= FLAG_READ_ONLY;
    }
    make(directory, SNAP_CREATE_V2, args, limit)
}

/// Removes the subvolume `name` of `directory` with all it holds; the kernel frees the space in
/// the background.
pub fn destroy_subvolume(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut args = volume_args(name)?;
    call(directory, SNAP_DESTROY_V2, &raw mut *args).map(drop)
}

/// Makes the subvolume whose root is `subvolume` read-only or writable.
pub fn set_read_only(subvolume: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut flags: u64 = if read_only { FLAG_READ_ONLY } else { 0 };
    call(subvolume, SUBVOL_SETFLAGS, &raw mut flags).map(drop)
}

/// The id of the subvolume that `inside` lies in.
pub fn subvolume_id(inside: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = Box::new(LookupArgs { tree: 0, object: SUBVOLUME_INODE, name: [0; 4080] });
    call(inside, INO_LOOKUP, &raw mut *args)?;
    Ok(args.tree)
}

/// The filesystem's UUID, as `/sys/fs/btrfs` names it.
pub fn filesystem_uuid(inside: BorrowedFd<'_>) -> io::Result<String> {
    let mut args = Box::new(FsInfoArgs { max_id: 0, devices: 0, uuid: [0; 16], rest: [0; 992] });
    call(inside, FS_INFO, &raw mut *args)?;
    let mut text = String::with_capacity(36);
    for (index, byte) in args.uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are a hex digit"));
        }
    }
    Ok(text)
}

/// Commits the running transaction: everything done so far survives a power loss.
pub fn sync(inside: BorrowedFd<'_>) -> io::Result<()> {
    call(inside, SYNC, std::ptr::null_mut::<u8>()).map(drop)
}

/// Commits the running transaction, as [`sync`] does, but without first writing what files have
/// in memory.
pub fn commit(inside: BorrowedFd<'_>) -> io::Result<()> {
    let mut transaction = 0_u64;
    call(inside, START_SYNC, &raw mut transaction)?;
    call(inside, WAIT_SYNC, &raw mut transaction).map(drop)
}

/// Switches quotas on. EINVAL or ENOTTY: this kernel does not know the mode.
pub fn enable_quota(inside: BorrowedFd<'_>, mode: QuotaMode) -> io::Result<()> {
    let command = match mode {
        QuotaMode::Full => 1,
        QuotaMode::Simple => 4,
    };
    let mut args = QuotaArgs { command, status: 0 };
    call(inside, QUOTA_CTL, &raw mut args)?;
    if mode == QuotaMode::Full {
        call(inside, QUOTA_RESCAN_WAIT, std::ptr::null_mut::<u8>())?;
    }
    Ok(())
}

/// Changes the limit of subvolume `id`.
pub fn set_limit(inside: BorrowedFd<'_>, id: u64, limit: QgroupLimit) -> io::Result<()> {
    let mut args = QgroupLimitArgs { qgroup: id, limit: limit.fields() };
    call(inside, QGROUP_LIMIT_SET, &raw mut args).map(drop)
}

/// Removes the quota group of a subvolume that is gone. EBUSY while it still holds a charge.
pub fn remove_qgroup(inside: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let mut args = QgroupCreateArgs { create: 0, qgroup: id };
    call(inside, QGROUP_CREATE, &raw mut args).map(drop)
}

/// The state of quotas; `None` when they are off.
pub fn quota_status(inside: BorrowedFd<'_>) -> io::Result<Option<QuotaStatus>> {
    let mut status = None;
    let range = Range { objects: (0, 0), types: (QGROUP_STATUS, QGROUP_STATUS), offsets: (0, 0) };
    let found = search(inside, QUOTA_TREE, &range, |_, item| {
        status = number(item, 16).map(|flags| QuotaStatus {
            mode: if flags & STATUS_FLAG_SIMPLE == 0 { QuotaMode::Full } else { QuotaMode::Simple },
            inconsistent: flags & STATUS_FLAG_INCONSISTENT != 0,
        });
        false
    });
    match found {
        // The quota tree exists only while quotas are on.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => other.map(|()| status),
    }
}

/// Usage and limit of subvolume `id`'s quota group; `None` when it has none.
pub fn qgroup(inside: BorrowedFd<'_>, id: u64) -> io::Result<Option<QgroupUsage>> {
    let mut usage = QgroupUsage::default();
    let mut seen = false;
    let range = Range { objects: (0, 0), types: (QGROUP_INFO, QGROUP_LIMIT), offsets: (id, id) };
    search(inside, QUOTA_TREE, &range, |key, item| {
        // The kernel compares keys as wholes, so neighbours inside the range come along.
        if key.offset == id && key.kind == QGROUP_INFO {
            seen = true;
            usage.referenced = number(item, 8).unwrap_or(0);
            usage.exclusive = number(item, 24).unwrap_or(0);
        } else if key.offset == id && key.kind == QGROUP_LIMIT {
            let flags = number(item, 0).unwrap_or(0);
            let value = |flag, at| number(item, at).filter(|_| flags & flag != 0);
            usage.limit.max_bytes = value(LIMIT_MAX_RFER, 8);
            usage.limit.notes = [value(LIMIT_RSV_RFER, 24), value(LIMIT_RSV_EXCL, 32)];
        }
        key.kind < QGROUP_LIMIT || key.offset < id
    })?;
    Ok(seen.then_some(usage))
}

/// Ids of the subvolumes that have a quota group, at most `most`.
pub fn qgroup_ids(inside: BorrowedFd<'_>, most: usize) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    let range =
        Range { objects: (0, 0), types: (QGROUP_INFO, QGROUP_INFO), offsets: (0, u64::MAX) };
    search(inside, QUOTA_TREE, &range, |key, _| {
        // The upper 16 bits are the level; subvolumes' own groups have level 0.
        if key.offset >> 48 == 0 {
            ids.push(key.offset);
        }
        ids.len() < most
    })?;
    Ok(ids)
}

/// Whether subvolume `id` still exists, also when it is only waiting to be cleaned away.
pub fn subvolume_exists(inside: BorrowedFd<'_>, id: u64) -> io::Result<bool> {
    let mut seen = false;
    let range = Range { objects: (id, id), types: (ROOT_ITEM, ROOT_ITEM), offsets: (0, u64::MAX) };
    search(inside, ROOT_TREE, &range, |key, _| {
        seen |= key.object == id && key.kind == ROOT_ITEM;
        false
    })?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_are_refused_before_the_kernel_sees_them() {
        for name in ["", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(volume_args(name).is_err(), "{name:?}");
        }
        assert!(volume_args("ws_1").is_ok());
    }
}
