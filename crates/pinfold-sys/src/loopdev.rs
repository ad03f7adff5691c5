//! Loop devices: a block device whose bytes are a file's (loop(4)).

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::PathBuf,
};

const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// How often another process may win the race for a free device.
const ATTEMPTS: usize = 64;

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// An attached loop device. It detaches by itself when its last user (a mount, this handle) has
/// gone: the kernel's autoclear.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node, such as `/dev/loop3`.
    pub path: PathBuf,
    /// Whether the device reads and writes the file past the page cache.
    pub direct_io: bool,
    _open: File,
}

/// Attaches `file` to a free loop device, with direct I/O when the file's filesystem can.
pub fn attach(file: BorrowedFd<'_>, read_only: bool, direct_io: bool) -> io::Result<LoopDevice> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/loop-control")?;
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument and answers with the device's number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(libc::O_CLOEXEC)
            .open(&path)?;
        for direct in [direct_io, false] {
            match configure(&device, file, direct) {
                Ok(()) => return Ok(LoopDevice { path, direct_io: direct, _open: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    last = error;
                    break;
                }
                // This filesystem has no direct I/O: once more without.
                Err(error) if direct => last = error,
                Err(error) => return Err(error),
            }
        }
    }
    Err(last)
}

fn configure(device: &File, file: BorrowedFd<'_>, direct_io: bool) -> io::Result<()> {
    let flags = LO_FLAGS_AUTOCLEAR | if direct_io { LO_FLAGS_DIRECT_IO } else { 0 };
    let mut config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).expect("an open descriptor is not negative"),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` is the structure this request takes and outlives the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw mut config) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
