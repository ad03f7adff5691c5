//! What a program inside sees and cannot do.

use std::collections::BTreeSet;

use pinfold_namespace::Launcher;

use crate::harness::{Ground, Workspace, launcher_options};

async fn walled() -> (Launcher, Workspace) {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let workspace = Ground::new().start(&launcher).await;
    (launcher, workspace)
}

#[tokio::test]
async fn every_namespace_is_its_own() {
    let (_launcher, workspace) = walled().await;
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let inside = workspace.output(&format!("readlink /proc/self/ns/{name}"));
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(inside.starts_with(name), "{inside}");
        assert_ne!(inside, outside.to_str().unwrap(), "{name}");
    }
    assert!(!workspace.output("cat /proc/1/comm").is_empty());
    assert_eq!(workspace.output("hostname"), "walled");
    let map = workspace.output("cat /proc/self/uid_map /proc/self/gid_map");
    let base = workspace.spec.ids.base.to_string();
    for line in map.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, ["0", base.as_str(), "65536"]);
    }
}

#[tokio::test]
async fn no_process_of_it_is_the_hosts_root() {
    let (_launcher, workspace) = walled().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", workspace.launched.pid));
    let status = status.expect("the guest's status");
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let base = workspace.spec.ids.base.to_string();
    assert_eq!(line("Uid:"), vec![base.clone(); 4]);
    assert_eq!(line("Gid:"), vec![base; 4]);
    assert!(line("Groups:").is_empty());
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    assert_eq!(line("Seccomp:"), ["2"]);
    assert_eq!(line("SigBlk:"), ["0000000000000000"]);
    // The guest itself ignores SIGPIPE, as every Rust program does. Its commands ignore nothing,
    // but for the two signals that glibc's posix_spawn keeps from programs.
    let ignored = workspace.output("grep SigIgn /proc/self/status | cut -f2");
    assert_eq!(u64::from_str_radix(&ignored, 16).unwrap() & !0x1_8000_0000, 0);
    assert_eq!(line("CapBnd:"), ["00000000a00405fb"]);
    assert_eq!(line("CapEff:"), ["00000000a00405fb"]);
    assert_eq!(line("CapInh:"), ["0000000000000000"]);
    assert_eq!(line("CapAmb:"), ["0000000000000000"]);
}

#[tokio::test]
async fn other_users_inside_hold_no_capability() {
    let (_launcher, workspace) = walled().await;
    let caps = workspace.python(
        "import os\nos.setgroups([]); os.setresgid(1000,1000,1000); os.setresuid(1000,1000,1000)\n\
         print([l.split()[1] for l in open('/proc/self/status') if l[:6] in ('CapEff','CapPrm')], os.getuid())",
    );
    assert_eq!(caps, "['0000000000000000', '0000000000000000'] 1000");
}

#[tokio::test]
async fn nothing_of_the_host_is_in_view() {
    let (_launcher, workspace) = walled().await;
    let mounts = workspace.output("cat /proc/self/mountinfo");
    let home = workspace.directory.path().to_str().unwrap();
    assert!(!mounts.contains(home) && !mounts.contains("/image"), "{mounts}");
    let targets: BTreeSet<&str> =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for target in &targets {
        let known = ["/", "/usr", "/run", "/dev", "/proc", "/sys"].contains(target)
            || ["/dev/", "/proc/", "/sys/"].iter().any(|parent| target.starts_with(parent));
        assert!(known, "{target}");
    }
    assert!(!mounts.contains("/dev/vda"), "the host's disk is named: {mounts}");
    assert_eq!(workspace.output("env -i /usr/bin/env"), "");
    assert_eq!(
        workspace
            .output("cat /proc/self/environ | tr '\\0' '\\n' | cut -d= -f1 | sort | tr '\\n' ' '"),
        "HOME PATH PWD"
    );
    // The whole of /dev.
    let devices = workspace.output("ls /dev");
    let devices: Vec<&str> = devices.split_whitespace().collect();
    assert_eq!(
        devices,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero"
        ]
    );
    // Only its own processes, and a loopback alone.
    let processes = workspace.output("ls /proc | grep -c '^[0-9]'");
    assert!(processes.parse::<u32>().unwrap() < 10, "{processes}");
    let interfaces = workspace.output("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    assert_eq!(interfaces, "lo");
    assert!(workspace.output("cat /proc/net/unix | wc -l").parse::<u32>().unwrap() < 6);
}

#[tokio::test]
async fn the_guest_gets_its_six_descriptors_and_no_other() {
    let (_launcher, workspace) = walled().await;
    let open = workspace.ask("@fds");
    let mut numbers: Vec<(u32, String)> = open
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, target)| !target.ends_with("/fd"))
        .map(|(number, target)| (number.parse().unwrap(), target.to_owned()))
        .collect();
    numbers.sort();
    let targets: Vec<&str> = numbers.iter().map(|(_, target)| target.as_str()).collect();
    let [null, out, error, listener, config, score] = targets[..] else { panic!("{open}") };
    assert_eq!((null, out), ("/dev/null", "/dev/null"), "{open}");
    assert!(error.starts_with("pipe:") && listener.starts_with("socket:"), "{open}");
    assert!(config.starts_with("pipe:") && score.ends_with("/oom_score_adj"), "{open}");
    assert_eq!(workspace.ask("@config"), "{\"hello\":1}");
    let mode = std::fs::metadata(&workspace.spec.socket).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
}

#[tokio::test]
async fn the_first_process_cannot_be_looked_into_or_traced() {
    let (_launcher, workspace) = walled().await;
    for path in ["environ", "mem", "maps", "fd/3", "root/etc", "cwd/etc", "exe", "auxv", "stack"] {
        let (said, fine) = workspace.run(&format!("stat -L /proc/1/{path} && cat /proc/1/{path}"));
        assert!(!fine, "/proc/1/{path}: {said}");
    }
    let said = workspace.python(
        "import ctypes\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         print(libc.ptrace(16,1,0,0), ctypes.get_errno())\n\
         buf=ctypes.create_string_buffer(8)\n\
         class V(ctypes.Structure): _fields_=[('b',ctypes.c_void_p),('l',ctypes.c_size_t)]\n\
         l=V(ctypes.cast(buf,ctypes.c_void_p),8); r=V(4096,8)\n\
         print(libc.process_vm_readv(1,ctypes.byref(l),1,ctypes.byref(r),1,0), ctypes.get_errno())\n\
         print(libc.syscall(438,libc.syscall(434,1,0),3,0), ctypes.get_errno())",
    );
    assert_eq!(said, "-1 1\n-1 1\n-1 1");
}

#[tokio::test]
async fn own_children_can_be_traced() {
    let (_launcher, workspace) = walled().await;
    let said = workspace.python(
        "import ctypes,os,signal\nlibc=ctypes.CDLL(None,use_errno=True)\np=os.fork()\n\
         if p==0:\n  libc.ptrace(0,0,0,0); os.kill(os.getpid(),signal.SIGSTOP); os._exit(7)\n\
         os.waitpid(p,0); print(libc.ptrace(7,p,0,0)); print(os.waitstatus_to_exitcode(os.waitpid(p,0)[1]))",
    );
    assert_eq!(said, "0\n7");
}

#[tokio::test]
async fn refused_calls_have_the_errno_of_the_table() {
    let (_launcher, workspace) = walled().await;
    // Name, number on x86_64, first arguments, errno.
    let table = [
        ("io_uring_setup", 425, "8,0", 38),
        ("bpf", 321, "0,0,0", 1),
        ("userfaultfd", 323, "1", 1),
        ("keyctl", 250, "0,-3,0", 38),
        ("add_key", 248, "0,0,0,0,0", 38),
        ("request_key", 249, "0,0,0,0", 38),
        ("perf_event_open", 298, "0,0,-1,-1,0", 13),
        ("init_module", 175, "0,0,0", 1),
        ("finit_module", 313, "-1,0,0", 1),
        ("kexec_load", 246, "0,0,0,0", 1),
        ("mount", 165, "0,0,0,0,0", 1),
        ("umount2", 166, "0,2", 1),
        ("fsopen", 430, "0,0", 1),
        ("open_tree", 428, "-100,0,1", 1),
        ("move_mount", 429, "0,0,0,0,0", 1),
        ("mount_setattr", 442, "0,0,0,0,0", 1),
        ("pivot_root", 155, "0,0", 1),
        ("setns", 308, "0,0", 1),
        ("unshare user", 272, "0x10000000", 1),
        ("unshare mount", 272, "0x20000", 1),
        ("clone user", 56, "0x10000011,0,0,0,0", 1),
        ("clone3", 435, "0,0", 38),
        ("reboot", 169, "0,0,0,0", 1),
        ("swapon", 167, "0,0", 1),
        ("syslog", 103, "3,0,0", 1),
        ("settimeofday", 164, "0,0", 1),
        ("clock_settime", 227, "0,0", 1),
        ("open_by_handle_at", 304, "-1,0,0", 1),
        ("name_to_handle_at", 303, "-100,0,0,0,0", 1),
        ("fanotify_init", 300, "0,0", 1),
        ("iopl", 172, "3", 1),
        ("acct", 163, "0", 1),
        ("quotactl", 179, "0,0,0,0", 1),
        ("kcmp", 312, "1,1,0,0,0", 1),
        ("move_pages", 279, "1,0,0,0,0,0", 1),
        ("sethostname", 170, "0,0", 1),
        ("personality read-implies-exec", 135, "0x400000", 1),
        ("TIOCSTI", 16, "0,0x5412,0", 1),
        ("vsock", 41, "40,1,0", 97),
        ("alg", 41, "38,5,0", 97),
        ("packet", 41, "17,3,0", 1),
        ("raw", 41, "2,3,1", 1),
        ("raw v6", 41, "10,3,58", 1),
        ("netlink audit", 41, "16,3,9", 93),
        ("netlink uevent", 41, "16,3,15", 93),
        ("netlink netfilter", 41, "16,3,12", 93),
        ("bluetooth", 41, "31,3,1", 97),
        ("sctp", 41, "2,1,132", 93),
        ("never heard of", 1999, "0", 38),
        ("x32", 0x4000_0027, "0", 38),
    ];
    let calls: String = table
        .iter()
        .map(|(name, number, arguments, _)| format!("t({name:?},{number},{arguments})"))
        .collect::<Vec<_>>()
        .join("\n");
    let said = workspace.python(&format!(
        "import ctypes\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         def t(name,nr,*a):\n  ctypes.set_errno(0)\n  r=libc.syscall(ctypes.c_long(nr),*[ctypes.c_long(x) for x in a])\n  \
         print(name+':',ctypes.get_errno() if r==-1 else 'went through')\n{calls}"
    ));
    let wanted: Vec<String> =
        table.iter().map(|(name, _, _, errno)| format!("{name}: {errno}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn masks_hold() {
    let (_launcher, workspace) = walled().await;
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/kallsyms",
        "/proc/kmsg",
        "/proc/timer_list",
        "/proc/interrupts",
    ] {
        let (said, _) = workspace.run(&format!("if [ -e {path} ]; then head -c 100 {path}; fi"));
        assert!(
            said.is_empty() || said.contains("Permission denied") || said.contains("not permitted"),
            "{path}: {said}"
        );
    }
    for line in [
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger && grep -q . /proc/sysrq-trigger",
        "echo 1 > /sys/devices/system/cpu/cpu0/online",
        "touch /sys/x",
        "ls /sys/block",
        "ls /sys/class",
        "dmesg",
        "mount -t tmpfs none /mnt",
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/mem c 1 1",
        "chroot / unshare -U true",
        "unshare -r true",
        "cat /dev/vda",
    ] {
        let (said, fine) = workspace.run(line);
        assert!(!fine, "{line}: {said}");
    }
    assert_eq!(workspace.output("cat /proc/sys/user/max_user_namespaces"), "0");
    // What programs do need is there.
    assert!(workspace.output("nproc").parse::<u32>().unwrap() > 0);
    workspace.output("cat /proc/meminfo /proc/cpuinfo /proc/stat /sys/devices/system/cpu/online");
}

#[tokio::test]
async fn ordinary_work_works() {
    let (_launcher, workspace) = walled().await;
    for line in [
        "echo hello > /root/file && cat /root/file",
        "mkdir /var/a /var/b && echo x > /var/a/f && mv /var/a/f /var/b/f && ln /var/b/f /var/a/g",
        "mv /usr/bin/true /usr/local/true && cp /usr/local/true /usr/bin/true && true",
        "rm /usr/bin/false && ! ls /usr/bin/false",
        "chown 1000:1000 /tmp && chmod 1777 /tmp && stat -c %u /tmp | grep 1000",
        "touch /tmp/x && chmod 4755 /tmp/x",
        "mkfifo /tmp/fifo",
        "echo x > /dev/null && head -c 10 /dev/urandom | wc -c | grep 10",
        "echo shared > /dev/shm/x && cat /dev/shm/x",
        "ls -l /dev/fd/ /proc/self/fd",
        "setpriv --reuid 1000 --regid 1000 --clear-groups id -u | grep 1000",
        "chroot / true",
        "script -qec 'tty' /dev/null | grep pts",
        "getent hosts localhost",
        "touch /run/pid && touch /run/lock/x",
        "sh -c 'ulimit -n' | grep 4096",
        "sh -c 'ulimit -c' | grep '^0$'",
    ] {
        workspace.output(line);
    }
    let said = workspace.python(
        "import socket,threading\ns=socket.socket(); s.bind(('127.0.0.1',80)); s.listen()\n\
         t=threading.Thread(target=lambda: s.accept()[0].sendall(b'hi')); t.start()\n\
         c=socket.create_connection(('127.0.0.1',80)); print(c.recv(2)); t.join()\n\
         s6=socket.socket(socket.AF_INET6); s6.bind(('::1',81)); s6.listen()\n\
         print(socket.socket(socket.AF_INET6).connect_ex(('::1',81)))\n\
         import multiprocessing; print(multiprocessing.Pool(2).map(abs,[-1,-2]))",
    );
    assert_eq!(said, "b'hi'\n0\n[1, 2]");
    let unreachable = workspace.python(
        "import socket\ns=socket.socket(); s.settimeout(3); print(s.connect_ex(('192.0.2.1',80)))",
    );
    assert_eq!(unreachable, "101");
}

#[tokio::test]
async fn files_on_the_disk_are_unshifted_and_the_image_is_untouched() {
    use std::os::unix::fs::MetadataExt;
    let (_launcher, workspace) = walled().await;
    workspace.output(
        "echo mine > /root/file; chown 1000:1000 /root/file; echo x >> /etc/passwd; rm /etc/group",
    );
    let upper = workspace.spec.disk.join("upper/0");
    let file = std::fs::metadata(upper.join("root/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1000, 1000));
    assert_eq!(std::fs::metadata(upper.join("etc/passwd")).unwrap().uid(), 0);
    let image = workspace.directory.path().join("image/etc");
    assert!(
        !std::fs::read_to_string(image.join("passwd"))
            .unwrap()
            .contains('\u{78}'.to_string().repeat(2).as_str())
    );
    assert!(image.join("group").exists());
}
