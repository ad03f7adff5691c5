//! Giving privilege up: capability sets, `no_new_privs`' companion calls, seccomp(2).

use std::io;

/// Highest capability number asked about; the kernel says where its own list ends.
const CAPABILITIES: u32 = 64;
/// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit halves.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops every capability whose bit is not in `keep` from the bounding, permitted and effective
/// sets, and all from the inheritable and ambient ones (capabilities(7)). Cannot be undone.
pub fn keep_capabilities(keep: u64) -> io::Result<()> {
    for capability in 0..CAPABILITIES {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: prctl with integers only.
        let done =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        if done == -1 {
            let error = io::Error::last_os_error();
            // EINVAL: one past the last capability this kernel knows.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    // SAFETY: prctl with integers only.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u64| {
        let bits = u32::try_from(bits & u64::from(u32::MAX)).expect("masked to 32 bits");
        Data { effective: bits, permitted: bits, inheritable: 0 }
    };
    let data = [half(keep), half(keep >> 32)];
    // SAFETY: version 3 takes one header and two data elements, which both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Installs a seccomp filter on the calling thread (seccomp(2)). Needs `no_new_privs` or
/// `CAP_SYS_ADMIN` in the user namespace. At most 4096 instructions.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter too long"))?;
    // The kernel only reads the program; the field is not const in C.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `filter` points at `length` instructions that outlive the call, which copies them.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The Landlock ABI of this kernel, 0 without Landlock (`landlock_create_ruleset(2)`,
/// `LANDLOCK_CREATE_RULESET_VERSION`).
pub fn landlock_abi() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes a null pointer and zero size, and only answers.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(answer).unwrap_or(0)
}
