//! Raw system calls, as an attacker makes them.

use std::ffi::CString;

use crate::{Stop, Tried};

/// A system call with any arguments; the kernel is trusted to refuse what is wrong.
pub fn call(number: libc::c_long, args: [usize; 6]) -> Result<i64, Stop> {
    // SAFETY: not claimed. This is the attacker's program: every pointer handed in here points to
    // live memory of this process or is null, and the process ends after one attempt.
    let result =
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result < 0 { Err(last()) } else { Ok(result) }
}

/// The error of the last libc call.
pub fn last() -> Stop {
    Stop::Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// The result of a libc call that answers below zero on failure.
pub fn check(result: i32) -> Result<i32, Stop> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

/// A C string.
pub fn c(text: &str) -> CString {
    CString::new(text).expect("attempts use no NUL")
}

/// The error of a standard-library operation.
#[expect(clippy::needless_pass_by_value, reason = "used as a map_err function")]
pub fn io(error: std::io::Error) -> Stop {
    Stop::Errno(error.raw_os_error().unwrap_or(0))
}

/// Opens a path.
pub fn open(path: &str, flags: i32) -> Result<i32, Stop> {
    let path = c(path);
    // SAFETY: the path is a live C string.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })
}

/// Reads at most 4 KiB of a file; an empty one is nothing gained.
pub fn read_some(path: &str) -> Tried {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mut buffer = [0_u8; 4096];
    let count = file.read(&mut buffer).map_err(io)?;
    if count == 0 {
        return Err(Stop::Nothing("empty"));
    }
    let text: String = String::from_utf8_lossy(&buffer[..count.min(60)]).into_owned();
    Ok(format!("read {count} bytes of {path}: {text:?}"))
}

/// Opens for writing without changing anything: that alone would be the gain.
pub fn open_for_write(path: &str) -> Tried {
    let fd = open(path, libc::O_WRONLY)?;
    // SAFETY: the descriptor was just opened here.
    unsafe { libc::close(fd) };
    Ok(format!("opened {path} for writing"))
}

/// The symbolic name of an errno.
pub fn errno_name(errno: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENFILE, "ENFILE"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EPFNOSUPPORT, "EPFNOSUPPORT"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::ENOPROTOOPT, "ENOPROTOOPT"),
        (libc::EUSERS, "EUSERS"),
    ];
    known
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

/// Names in a host's root directory that a workspace's root never has.
const HOST_SIGNS: &[&str] = &["lost+found", "boot/grub", "vmlinuz", "initrd.img", "etc/machine-id"];

/// The first sign of the host's root below `prefix`.
pub fn host_sign(prefix: &str) -> Option<String> {
    HOST_SIGNS
        .iter()
        .map(|sign| format!("{prefix}/{sign}"))
        .find(|path| std::fs::symlink_metadata(path).is_ok())
}
