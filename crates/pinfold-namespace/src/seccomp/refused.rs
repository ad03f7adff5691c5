//! What is refused, with the errno that programs take best. Everything not named here or in
//! [`super::allowed`] gets ENOSYS.
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "a table of a library's constants")
)]

use libc::*;

use super::{Group, Judge, Rule};

pub(super) const GROUPS: &[Group] = &[
    Group {
        reason: "glibc and musl fall back to clone(2), whose flags a filter can read; clone3's are in memory",
        rule: Rule::Refuse(ENOSYS),
        calls: &[SYS_clone3],
    },
    Group {
        reason: "io_uring does I/O past this filter and has been the kernel's most broken part; libraries fall back to epoll on ENOSYS",
        rule: Rule::Refuse(ENOSYS),
        calls: &[SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register],
    },
    Group {
        reason: "kernel AIO counts its contexts for the whole machine (fs.aio-max-nr), so one workspace could take them all; databases do without on ENOSYS",
        rule: Rule::Refuse(ENOSYS),
        calls: &[
            SYS_io_setup,
            SYS_io_destroy,
            SYS_io_submit,
            SYS_io_cancel,
            SYS_io_getevents,
            IO_PGETEVENTS,
        ],
    },
    Group {
        reason: "programs for the kernel to run",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_bpf],
    },
    Group {
        reason: "page faults held open in user space: the classic help for kernel races",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_userfaultfd],
    },
    Group {
        reason: "key rings are shared with the host's other processes of the same uid; ENOSYS reads as a kernel without keys",
        rule: Rule::Refuse(ENOSYS),
        calls: &[SYS_add_key, SYS_request_key, SYS_keyctl],
    },
    Group {
        reason: "performance counters see the host's processors",
        rule: Rule::Refuse(EACCES),
        calls: &[SYS_perf_event_open],
    },
    Group {
        reason: "loading code into the kernel, or another kernel",
        rule: Rule::Refuse(EPERM),
        calls: &[
            SYS_init_module,
            SYS_finit_module,
            SYS_delete_module,
            SYS_kexec_load,
            SYS_kexec_file_load,
        ],
    },
    Group {
        reason: "the whole machine's state: power, swap, accounting, quotas, kernel log",
        rule: Rule::Refuse(EPERM),
        calls: &[
            SYS_reboot,
            SYS_swapon,
            SYS_swapoff,
            SYS_acct,
            SYS_quotactl,
            SYS_quotactl_fd,
            SYS_syslog,
            SYS_vhangup,
            SYS_lookup_dcookie,
        ],
    },
    Group {
        reason: "the machine's clock",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime],
    },
    Group {
        reason: "files by handle come from the filesystem below, past every directory's rights",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_open_by_handle_at],
    },
    Group {
        reason: "watching whole filesystems; inotify is there",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_fanotify_init, SYS_fanotify_mark],
    },
    Group {
        reason: "moving other processes' pages and comparing their kernel objects",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_migrate_pages, SYS_move_pages, SYS_kcmp],
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        reason: "ports of the machine's hardware",
        rule: Rule::Refuse(EPERM),
        calls: &[SYS_iopl, SYS_ioperm],
    },
];

/// In a workspace that is not nested.
pub(super) const NAMESPACES: &[Group] = &[
    Group {
        reason: "processes and threads, but no namespaces",
        rule: Rule::Judge(Judge::NamespaceFlags),
        calls: &[SYS_clone, SYS_unshare],
    },
    Group {
        reason: "entering namespaces, changing the mount tree, and names of the machine",
        rule: Rule::Refuse(EPERM),
        calls: &[
            SYS_setns,
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_fspick,
            SYS_move_mount,
            SYS_open_tree,
            SYS_mount_setattr,
            OPEN_TREE_ATTR,
            SYS_sethostname,
            SYS_setdomainname,
            SYS_name_to_handle_at,
        ],
    },
];

/// `open_tree_attr(2)`: Linux 6.15, not yet named by libc.
const OPEN_TREE_ATTR: c_long = 467;

/// `io_pgetevents(2)`, not named by libc.
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: c_long = 333;
#[cfg(target_arch = "aarch64")]
const IO_PGETEVENTS: c_long = 292;
