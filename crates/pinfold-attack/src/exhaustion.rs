//! Using things up. Each is bounded a little above the limit that the harness sets, so that a
//! missing wall shows as success and harms nobody.
//!
//! The harness gives: 64 MiB of memory, 64 processes, 64 MiB of disk, 256 open files.

use std::io::Write;

use crate::{
    Attempt,
    Category::Exhaustion,
    Stop, Tried, Wall,
    raw::{c, check, io},
};

const OVER: usize = 160 << 20;

fn touch(memory: *mut u8, length: usize) {
    for offset in (0..length).step_by(4096) {
        // SAFETY: within the mapping made by the caller.
        unsafe { memory.add(offset).write_volatile(1) };
    }
}

fn map(flags: i32, fd: i32) -> Result<*mut u8, Stop> {
    // SAFETY: a new mapping; the kernel chooses the address.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), OVER, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0)
    };
    if memory == libc::MAP_FAILED { Err(crate::raw::last()) } else { Ok(memory.cast()) }
}

fn memory() -> Tried {
    touch(map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?, OVER);
    Ok("touched 160 MiB".into())
}
fn shared_memory() -> Tried {
    touch(map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?, OVER);
    Ok("touched 160 MiB of shared memory".into())
}
fn memfd() -> Tried {
    let name = c("x");
    // SAFETY: a live C string.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), 0) })?;
    // SAFETY: a live descriptor.
    check(unsafe { libc::ftruncate(fd, OVER as libc::off_t) })?;
    touch(map(libc::MAP_SHARED, fd)?, OVER);
    Ok("touched 160 MiB of a memfd".into())
}
fn fill(path: &str, bytes: usize) -> Tried {
    let mut file = std::fs::File::create(path).map_err(io)?;
    let block = vec![7_u8; 1 << 20];
    let mut done = 0;
    let mut outcome = Ok(());
    while done < bytes && outcome.is_ok() {
        outcome = file.write_all(&block).map_err(io);
        done += block.len();
    }
    let outcome = outcome.and_then(|()| file.sync_all().map_err(io));
    let _ = std::fs::remove_file(path);
    outcome.map(|()| format!("wrote {bytes} bytes to {path}"))
}
fn shm() -> Tried {
    fill("/dev/shm/attack", OVER)
}
fn disk() -> Tried {
    fill("/var/tmp/attack", OVER)
}
fn tmp() -> Tried {
    fill("/tmp/attack", OVER)
}
fn dev() -> Tried {
    fill("/dev/attack", OVER)
}
fn run_dir() -> Tried {
    fill("/run/attack", OVER)
}
fn sparse_then_fill() -> Tried {
    let file = std::fs::File::create("/var/tmp/attack-fallocate").map_err(io)?;
    // SAFETY: a live descriptor.
    let answer = check(unsafe {
        libc::fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), 0, 0, OVER as libc::off_t)
    });
    let _ = std::fs::remove_file("/var/tmp/attack-fallocate");
    answer.map(|_| "reserved 160 MiB by fallocate".into())
}
fn forks() -> Tried {
    let mut children = Vec::new();
    let outcome = loop {
        // SAFETY: the child only waits.
        let child = unsafe { libc::fork() };
        match child {
            0 => {
                // SAFETY: no memory is touched.
                unsafe {
                    libc::pause();
                    libc::_exit(0);
                }
            }
            pid if pid > 0 => children.push(pid),
            _ => break Err(crate::raw::last()),
        }
        if children.len() >= 200 {
            break Ok("200 children live".to_owned());
        }
    };
    for child in children {
        // SAFETY: children made above.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    outcome
}
fn threads() -> Tried {
    let mut handles = Vec::new();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(1);
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
    let outcome = loop {
        let gate = std::sync::Arc::clone(&receiver);
        let spawned = std::thread::Builder::new().stack_size(16 << 10).spawn(move || {
            let _ = gate.lock().map(|gate| gate.recv());
        });
        match spawned {
            Ok(handle) => handles.push(handle),
            Err(error) => break Err(io(error)),
        }
        if handles.len() >= 200 {
            break Ok("200 threads live".to_owned());
        }
    };
    drop(sender);
    outcome
}
fn open_files() -> Tried {
    let mut files = Vec::new();
    loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => return Err(io(error)),
        }
        if files.len() >= 1000 {
            return Ok("1000 files open".into());
        }
    }
}
fn pipes() -> Tried {
    // Pipe buffers are kernel memory: enlarged, they pass a process's own accounting by.
    let mut total = 0_i64;
    for _ in 0..100 {
        let mut ends = [0; 2];
        // SAFETY: a live out-parameter.
        check(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
        // SAFETY: a live descriptor.
        let size = unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 4 << 20) };
        total += i64::from(size.max(65_536));
        if total > 128 << 20 {
            return Ok(format!("{total} bytes of pipe buffers"));
        }
    }
    Err(Stop::Nothing("bounded"))
}
fn huge_name_space() -> Tried {
    // Many small files: metadata without data.
    std::fs::create_dir_all("/var/tmp/attack-many").map_err(io)?;
    let mut outcome = Ok("made 60000 files".to_owned());
    for number in 0..60_000 {
        let path = format!("/var/tmp/attack-many/{number:0200}");
        if let Err(error) = std::fs::write(path, [0_u8; 1500]) {
            outcome = Err(io(error));
            break;
        }
    }
    let _ = std::fs::remove_dir_all("/var/tmp/attack-many");
    outcome
}
fn core_dump() -> Tried {
    // To a pipe the kernel dumps under every limit but one byte (core(5)): is it that, and does it
    // stay that?
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live limit, then a live out-parameter.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
    // SAFETY: as above.
    check(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) })?;
    if limit.rlim_cur == 1 {
        Err(Stop::Nothing("one"))
    } else {
        Ok("core dumps reach the host's handler".into())
    }
}
fn mlock() -> Tried {
    let memory = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: the mapping made above.
    check(unsafe { libc::mlock(memory.cast(), OVER) })?;
    Ok("locked 160 MiB".into())
}
fn message_queues() -> Tried {
    let name = c("/attack");
    let mut attributes: libc::mq_attr = unsafe {
        // SAFETY: plain numbers; all zero is valid.
        std::mem::zeroed()
    };
    attributes.mq_maxmsg = 10_000;
    attributes.mq_msgsize = 8192;
    // SAFETY: live pointers.
    let queue = unsafe {
        libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, &raw const attributes)
    };
    check(queue)?;
    Ok("a queue of 80 MiB".into())
}

const KILLED: &[&str] = &["killed", "ENOMEM"];
const FULL: &[&str] = &["EDQUOT", "ENOSPC"];

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "use-memory",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "touch more memory than allowed",
        source: "PF-11",
        held: KILLED,
        body: memory,
    },
    Attempt {
        id: "use-shared-memory",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "the same by shared memory",
        source: "PF-11",
        held: KILLED,
        body: shared_memory,
    },
    Attempt {
        id: "use-memfd",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "the same by a memfd",
        source: "PF-11",
        held: KILLED,
        body: memfd,
    },
    Attempt {
        id: "use-shm",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "fill /dev/shm",
        source: "PF-11",
        held: &["killed", "ENOMEM", "ENOSPC"],
        body: shm,
    },
    Attempt {
        id: "use-disk",
        category: Exhaustion,
        wall: Wall::Quota,
        what: "fill the disk",
        source: "PF-11",
        held: FULL,
        body: disk,
    },
    Attempt {
        id: "use-tmp",
        category: Exhaustion,
        wall: Wall::Quota,
        what: "fill /tmp",
        source: "PF-11",
        held: &["EDQUOT", "ENOSPC", "killed"],
        body: tmp,
    },
    Attempt {
        id: "use-dev",
        category: Exhaustion,
        wall: Wall::Devices,
        what: "fill /dev",
        source: "PF-11",
        held: &["EACCES", "EROFS", "ENOSPC", "killed", "EDQUOT", "EPERM"],
        body: dev,
    },
    Attempt {
        id: "use-run",
        category: Exhaustion,
        wall: Wall::Quota,
        what: "fill /run",
        source: "PF-11",
        held: &["EDQUOT", "ENOSPC", "killed"],
        body: run_dir,
    },
    Attempt {
        id: "use-fallocate",
        category: Exhaustion,
        wall: Wall::Quota,
        what: "reserve the disk by fallocate",
        source: "fallocate(2)",
        held: FULL,
        body: sparse_then_fill,
    },
    Attempt {
        id: "use-inodes",
        category: Exhaustion,
        wall: Wall::Quota,
        what: "make very many small files",
        source: "PF-11",
        held: &["EDQUOT", "ENOSPC", "EMLINK"],
        body: huge_name_space,
    },
    Attempt {
        id: "use-forks",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "fork without end",
        source: "PF-11, the fork bomb",
        held: &["EAGAIN"],
        body: forks,
    },
    Attempt {
        id: "use-threads",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "make threads without end",
        source: "PF-11",
        held: &["EAGAIN"],
        body: threads,
    },
    Attempt {
        id: "use-files",
        category: Exhaustion,
        wall: Wall::Rlimits,
        what: "open files without end",
        source: "PF-11",
        held: &["EMFILE"],
        body: open_files,
    },
    Attempt {
        id: "use-pipes",
        category: Exhaustion,
        wall: Wall::Capabilities,
        what: "hoard pipe buffers",
        source: "pipe(7), pipe-user-pages-hard",
        held: &["bounded", "EPERM", "EMFILE", "ENOMEM", "killed"],
        body: pipes,
    },
    Attempt {
        id: "use-core",
        category: Exhaustion,
        wall: Wall::Rlimits,
        what: "feed core dumps to the host's handler",
        source: "CVE-2015-1318 and kin",
        held: &["one"],
        body: core_dump,
    },
    Attempt {
        id: "use-mlock",
        category: Exhaustion,
        wall: Wall::Cgroups,
        what: "lock memory",
        source: "mlock(2)",
        held: &["ENOMEM", "EPERM", "EAGAIN", "killed"],
        body: mlock,
    },
    Attempt {
        id: "use-mqueue",
        category: Exhaustion,
        wall: Wall::Capabilities,
        what: "hoard message queues",
        source: "mq_overview(7)",
        held: &["EINVAL", "EMFILE", "ENOMEM", "EACCES", "EPERM", "ENOSYS", "EOVERFLOW"],
        body: message_queues,
    },
];
