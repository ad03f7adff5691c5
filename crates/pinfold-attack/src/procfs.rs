//! Moves through `/proc` and `/sys`.

use crate::{
    Attempt,
    Category::{Cgroups, ProcSys},
    Stop, Tried, Wall,
    raw::{io, open_for_write, read_some},
};

fn kcore() -> Tried {
    read_some("/proc/kcore")
}
fn kmsg() -> Tried {
    // Without waiting: an empty log says EAGAIN, a mask says end of file.
    let fd = crate::raw::open("/proc/kmsg", libc::O_RDONLY | libc::O_NONBLOCK)?;
    let mut buffer = [0_u8; 64];
    // SAFETY: a live descriptor and a live buffer of the length given.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    match count {
        0 => Err(Stop::Nothing("empty")),
        count if count > 0 => Ok(format!("read {count} bytes of the kernel log")),
        _ => Err(crate::raw::last()),
    }
}
fn keys() -> Tried {
    read_some("/proc/keys")
}
fn timer_list() -> Tried {
    read_some("/proc/timer_list")
}
fn iomem() -> Tried {
    let text = std::fs::read_to_string("/proc/iomem").map_err(io)?;
    let real = text.lines().any(|line| !line.trim_start().starts_with("00000000-00000000"));
    if text.is_empty() || !real {
        return Err(Stop::Nothing("zeroes"));
    }
    Ok("physical addresses are readable".into())
}
fn kallsyms() -> Tried {
    let text = std::fs::read_to_string("/proc/kallsyms").map_err(io)?;
    if text.lines().take(50).all(|line| line.starts_with("0000000000000000")) {
        return Err(Stop::Nothing("zeroes"));
    }
    Ok("kernel addresses are readable".into())
}
fn sysrq() -> Tried {
    open_for_write("/proc/sysrq-trigger")
}
fn core_pattern() -> Tried {
    open_for_write("/proc/sys/kernel/core_pattern")
}
fn modprobe() -> Tried {
    open_for_write("/proc/sys/kernel/modprobe")
}
fn binfmt() -> Tried {
    open_for_write("/proc/sys/fs/binfmt_misc/register")
}
fn panic() -> Tried {
    open_for_write("/proc/sys/kernel/panic")
}
fn ip_forward() -> Tried {
    open_for_write("/proc/sys/net/ipv4/ip_forward")
}
fn max_namespaces() -> Tried {
    open_for_write("/proc/sys/user/max_user_namespaces")
}
fn overcommit() -> Tried {
    open_for_write("/proc/sys/vm/overcommit_memory")
}
fn uevent_helper() -> Tried {
    open_for_write("/sys/kernel/uevent_helper")
}
fn kernel_debug() -> Tried {
    let count = std::fs::read_dir("/sys/kernel/debug").map_err(io)?.count();
    if count == 0 { Err(Stop::Nothing("empty")) } else { Ok(format!("{count} entries of debugfs")) }
}
fn firmware() -> Tried {
    let count = std::fs::read_dir("/sys/firmware").map_err(io)?.count();
    if count == 0 {
        Err(Stop::Nothing("empty"))
    } else {
        Ok(format!("{count} entries of firmware"))
    }
}
fn block_devices() -> Tried {
    let count = std::fs::read_dir("/sys/block").map_err(io)?.count();
    if count == 0 { Err(Stop::Nothing("empty")) } else { Ok(format!("{count} block devices")) }
}
fn dmi() -> Tried {
    read_some("/sys/class/dmi/id/product_name")
}
fn proc_scsi() -> Tried {
    read_some("/proc/scsi/scsi")
}
fn config_gz() -> Tried {
    read_some("/proc/kpagecount")
}
fn host_mounts() -> Tried {
    let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(io)?;
    // Field 4 is the mount's root inside its filesystem. A pool path may show as the source of
    // the root's own overlay options; a host path as a mount is what must not be there.
    let bad = text.lines().find(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(4).is_some_and(|target| {
            ["/host", "/mnt/host", "/oldroot", "/old_root", "/.old"]
                .iter()
                .any(|bad| target.starts_with(bad))
        })
    });
    bad.map_or(Err(Stop::Nothing("none visible")), |line| Ok(line.to_owned()))
}
fn oom_score_of_init() -> Tried {
    open_for_write("/proc/1/oom_score_adj")
}
fn lower_own_oom_score() -> Tried {
    std::fs::write("/proc/self/oom_score_adj", "-1000").map_err(io)?;
    Ok("exempt from the OOM killer".into())
}
fn release_agent() -> Tried {
    for base in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
        let path = format!("{base}/release_agent");
        if std::path::Path::new(&path).exists() {
            return open_for_write(&path);
        }
    }
    Err(Stop::Nothing("none visible"))
}
fn cgroup_procs() -> Tried {
    for base in
        ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]
    {
        let path = format!("{base}/cgroup.procs");
        if std::path::Path::new(&path).exists() {
            std::fs::write(&path, "0").map_err(io)?;
            return Ok(format!("moved to another cgroup by {path}"));
        }
    }
    Err(Stop::Nothing("none visible"))
}
fn cgroup_path() -> Tried {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(io)?;
    let bad = text
        .lines()
        .find(|line| line.rsplit(':').next().is_some_and(|path| path != "/" && !path.is_empty()));
    bad.map_or(Err(Stop::Nothing("none visible")), |line| Ok(format!("the host's path {line}")))
}
fn cgroup_dotdot() -> Tried {
    let text = std::fs::read_to_string("/proc/1/cgroup").map_err(io)?;
    let bad = text.lines().find(|line| line.contains("/.."));
    bad.map_or(Err(Stop::Nothing("none visible")), |line| Ok(format!("outside the root: {line}")))
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "proc-kcore",
        category: ProcSys,
        wall: Wall::Masks,
        what: "read the kernel's memory",
        source: "proc(5), /proc/kcore",
        held: &["EPERM", "EACCES", "ENOENT", "empty"],
        body: kcore,
    },
    Attempt {
        id: "proc-kmsg",
        category: ProcSys,
        wall: Wall::Masks,
        what: "read the kernel log",
        source: "proc(5); PF-12",
        held: &["EPERM", "EACCES", "ENOENT", "empty"],
        body: kmsg,
    },
    Attempt {
        id: "proc-keys",
        category: ProcSys,
        wall: Wall::Masks,
        what: "list key rings",
        source: "moby masked paths",
        held: &["EPERM", "EACCES", "ENOENT", "empty"],
        body: keys,
    },
    Attempt {
        id: "proc-timer-list",
        category: ProcSys,
        wall: Wall::Masks,
        what: "read every process's timers",
        source: "moby masked paths",
        held: &["EPERM", "EACCES", "ENOENT", "empty"],
        body: timer_list,
    },
    Attempt {
        id: "proc-iomem",
        category: ProcSys,
        wall: Wall::UserNamespace,
        what: "read physical addresses",
        source: "proc(5)",
        held: &["zeroes", "EACCES", "ENOENT", "EPERM"],
        body: iomem,
    },
    Attempt {
        id: "proc-kallsyms",
        category: ProcSys,
        wall: Wall::UserNamespace,
        what: "read kernel addresses",
        source: "kptr_restrict",
        held: &["zeroes", "EACCES", "ENOENT", "EPERM"],
        body: kallsyms,
    },
    Attempt {
        id: "proc-sysrq",
        category: ProcSys,
        wall: Wall::Masks,
        what: "reach sysrq (opened, not fired)",
        source: "proc(5), sysrq-trigger",
        held: &["EROFS", "EACCES", "ENOENT", "EPERM"],
        body: sysrq,
    },
    Attempt {
        id: "proc-core-pattern",
        category: ProcSys,
        wall: Wall::Masks,
        what: "make the host run a program at a crash",
        source: "core(5); the classic container escape",
        held: &["EROFS", "EACCES", "EPERM"],
        body: core_pattern,
    },
    Attempt {
        id: "proc-modprobe",
        category: ProcSys,
        wall: Wall::Masks,
        what: "name the program the kernel runs to load modules",
        source: "modprobe_path exploits",
        held: &["EROFS", "EACCES", "ENOENT", "EPERM"],
        body: modprobe,
    },
    Attempt {
        id: "proc-binfmt",
        category: ProcSys,
        wall: Wall::Masks,
        what: "register an interpreter for every program",
        source: "binfmt_misc(7)",
        held: &["EROFS", "EACCES", "ENOENT", "EPERM"],
        body: binfmt,
    },
    Attempt {
        id: "proc-panic",
        category: ProcSys,
        wall: Wall::Masks,
        what: "change a kernel setting",
        source: "sysctl(8)",
        held: &["EROFS", "EACCES", "EPERM"],
        body: panic,
    },
    Attempt {
        id: "proc-ip-forward",
        category: ProcSys,
        wall: Wall::Masks,
        what: "change its own network's settings",
        source: "ip-sysctl",
        held: &["EROFS", "EACCES", "EPERM", "ENOENT"],
        body: ip_forward,
    },
    Attempt {
        id: "proc-max-namespaces",
        category: ProcSys,
        wall: Wall::Masks,
        what: "raise the number of namespaces allowed",
        source: "namespaces(7)",
        held: &["EROFS", "EACCES", "EPERM"],
        body: max_namespaces,
    },
    Attempt {
        id: "proc-overcommit",
        category: ProcSys,
        wall: Wall::Masks,
        what: "change the host's memory policy",
        source: "proc(5)",
        held: &["EROFS", "EACCES", "EPERM"],
        body: overcommit,
    },
    Attempt {
        id: "sys-uevent-helper",
        category: ProcSys,
        wall: Wall::Masks,
        what: "name the program run for device events",
        source: "the classic uevent_helper escape",
        held: &["EROFS", "EACCES", "ENOENT", "EPERM"],
        body: uevent_helper,
    },
    Attempt {
        id: "sys-debugfs",
        category: ProcSys,
        wall: Wall::Masks,
        what: "look into debugfs",
        source: "moby issue 2142",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: kernel_debug,
    },
    Attempt {
        id: "sys-firmware",
        category: ProcSys,
        wall: Wall::Masks,
        what: "look into firmware tables",
        source: "moby masked paths",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: firmware,
    },
    Attempt {
        id: "sys-block",
        category: ProcSys,
        wall: Wall::Masks,
        what: "list the host's disks",
        source: "sysfs(5)",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: block_devices,
    },
    Attempt {
        id: "sys-dmi",
        category: ProcSys,
        wall: Wall::Masks,
        what: "learn the machine's model",
        source: "sysfs(5)",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: dmi,
    },
    Attempt {
        id: "proc-scsi",
        category: ProcSys,
        wall: Wall::Masks,
        what: "reach the SCSI interface",
        source: "CVE-2017-16539",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: proc_scsi,
    },
    Attempt {
        id: "proc-kpagecount",
        category: ProcSys,
        wall: Wall::UserNamespace,
        what: "count the mappings of every page",
        source: "pagemap documentation",
        held: &["empty", "EACCES", "ENOENT", "EPERM"],
        body: config_gz,
    },
    Attempt {
        id: "proc-host-mounts",
        category: ProcSys,
        wall: Wall::Root,
        what: "find the host's root still mounted",
        source: "pivot_root(2), notes",
        held: &["none visible"],
        body: host_mounts,
    },
    Attempt {
        id: "proc-init-oom-score",
        category: ProcSys,
        wall: Wall::Undumpable,
        what: "make process 1 the OOM killer's favourite",
        source: "proc(5), oom_score_adj",
        held: &["EACCES", "EPERM", "EROFS"],
        body: oom_score_of_init,
    },
    Attempt {
        id: "proc-own-oom-score",
        category: ProcSys,
        wall: Wall::Capabilities,
        what: "become exempt from the OOM killer",
        source: "proc(5), CAP_SYS_RESOURCE",
        held: &["EACCES", "EPERM"],
        body: lower_own_oom_score,
    },
    Attempt {
        id: "cgroup-release-agent",
        category: Cgroups,
        wall: Wall::Masks,
        what: "reach release_agent",
        source: "CVE-2022-0492",
        held: &["none visible", "EROFS", "EACCES", "EPERM"],
        body: release_agent,
    },
    Attempt {
        id: "cgroup-move",
        category: Cgroups,
        wall: Wall::Masks,
        what: "move to a cgroup without limits",
        source: "cgroups(7)",
        held: &["none visible", "EROFS", "EACCES", "EPERM"],
        body: cgroup_procs,
    },
    Attempt {
        id: "cgroup-path",
        category: Cgroups,
        wall: Wall::CgroupNamespace,
        what: "learn the host's cgroup path",
        source: "cgroup_namespaces(7)",
        held: &["none visible"],
        body: cgroup_path,
    },
    Attempt {
        id: "cgroup-outside",
        category: Cgroups,
        wall: Wall::CgroupNamespace,
        what: "see a process outside the cgroup root",
        source: "cgroup_namespaces(7), paths with ..",
        held: &["none visible"],
        body: cgroup_dotdot,
    },
];
