//! What else makes a sandbox on this machine, each asked for the nearest equivalent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{root::Root, timer::Runs};

/// How often each is measured in a full run: the slow ones less.
const PEERS: &[(&str, &str, usize)] = &[
    ("bwrap", "read-only root, no seccomp", 100),
    ("nsjail", "read-only root, no seccomp", 100),
    ("crun", "read-only root, seccomp, cgroup", 100),
    ("runc", "read-only root, seccomp, cgroup", 50),
    ("podman", "overlay, seccomp, cgroup, over runc", 10),
];

/// One that is there.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What its equivalent lacks, or is made of.
    pub(crate) manner: &'static str,
    pub(crate) count: usize,
    program: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Peers {
    found: Vec<Peer>,
    missing: Vec<&'static str>,
    tree: PathBuf,
    scratch: PathBuf,
}

impl Peers {
    pub(crate) fn find(root: &Root) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (name, manner, count) in PEERS {
            match find_program(name) {
                Some(program) => found.push(Peer { name, manner, count: *count, program }),
                None => missing.push(*name),
            }
        }
        let peers = Self { found, missing, tree: root.tree(), scratch: root.scratch() };
        for (name, words) in [("echo", ["/bin/echo", "ok"].as_slice()), ("true", &["/bin/true"])] {
            peers.write_bundle(name, words)?;
        }
        peers.write_bundle("sleep", &["/bin/sleep", "3600"])?;
        Ok(peers)
    }

    pub(crate) fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    pub(crate) fn all(&self) -> &[Peer] {
        &self.found
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Peer> {
        self.found.iter().find(|peer| peer.name == name)
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.scratch.join("bundles").join(name)
    }

    /// An OCI bundle with the same walls where the format knows them.
    fn write_bundle(&self, name: &str, args: &[&str]) -> anyhow::Result<()> {
        let bundle = self.bundle(name);
        fs::create_dir_all(&bundle)?;
        let text = serde_json::to_vec_pretty(&bundle_config(&self.tree, args))?;
        Ok(fs::write(bundle.join("config.json"), text)?)
    }

    /// The words that run a program in a new sandbox; `{}` becomes the run's number.
    fn words(&self, peer: &Peer, program: &str) -> Vec<String> {
        let tree = self.tree.display().to_string();
        let args: &[&str] = if program == "echo" { &["/bin/echo", "ok"] } else { &["/bin/true"] };
        let bundle = self.bundle(program).display().to_string();
        let mut words: Vec<&str> = match peer.name {
            "bwrap" => vec![
                "--unshare-all",
                "--hostname",
                "bench",
                "--ro-bind",
                &tree,
                "/",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--tmpfs",
                "/tmp",
                "--cap-drop",
                "ALL",
                "--new-session",
                "--die-with-parent",
                "--",
            ],
            "nsjail" => vec![
                "--mode",
                "o",
                "--really_quiet",
                "--chroot",
                &tree,
                "--disable_rlimits",
                "--hostname",
                "bench",
                "--",
            ],
            "podman" => vec![
                "--runtime",
                "runc",
                "run",
                "--rm",
                "--network",
                "none",
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=4096:4096",
                "--rootfs",
            ],
            _ => vec!["run", "--bundle", &bundle, "pf-bench-{}"],
        };
        let overlay = format!("{tree}:O");
        if peer.name == "podman" {
            words.push(&overlay);
        }
        if !matches!(peer.name, "crun" | "runc") {
            words.extend(args);
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// Times new sandboxes with `echo` or `true` in them.
    pub(crate) fn create(&self, peer: &Peer, program: &str, count: usize) -> anyhow::Result<Runs> {
        timed(&peer.program, &self.words(peer, program), count)
    }

    /// Times `true` in a container that runs, where the runtime can do that.
    pub(crate) fn exec(&self, peer: &Peer, count: usize) -> anyhow::Result<Option<Runs>> {
        if !matches!(peer.name, "crun" | "runc") {
            return Ok(None);
        }
        let id = format!("pf-bench-held-{}", peer.name);
        let bundle = self.bundle("sleep").display().to_string();
        let program = peer.program.display().to_string();
        // One mount namespace for all of it: the runtime refuses the machine's own (see below).
        let script = format!(
            "{HIDE_UNIFIED}; '{program}' run --detach --bundle '{bundle}' {id} </dev/null >/dev/null 2>&1 || exit 1\n\
             '{own}' time {count} -- '{program}' exec {id} /bin/true; code=$?\n\
             '{program}' delete --force {id} >/dev/null 2>&1; exit $code",
            own = own_program()?
        );
        Ok(Some(Runs::parse(&in_mount_namespace(&script)?)?))
    }
}

/// crun 1.8 refuses a machine that has both cgroup versions mounted: it is shown one without the
/// second. The other programs do not look. Runtimes give what they find as standard input to the
/// container's root, so it is not the machine's own `/dev/null` that they find.
const HIDE_UNIFIED: &str = "umount /sys/fs/cgroup/unified 2>/dev/null || true; cd /; ulimit -n 1024; \
     { mount -t tmpfs null /mnt && mknod -m 666 /mnt/null c 1 3 && \
       mount --bind /mnt/null /dev/null; } || exit 1";

fn own_program() -> anyhow::Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

fn timed(program: &Path, words: &[String], count: usize) -> anyhow::Result<Runs> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "{HIDE_UNIFIED}; exec '{}' time {count} -- '{}' {}",
        own_program()?,
        program.display(),
        quoted.join(" ")
    );
    Runs::parse(&in_mount_namespace(&script)?)
}

fn in_mount_namespace(script: &str) -> anyhow::Result<String> {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .output()
        .context("unshare")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed in silence")
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// In `PATH`, or where `make bench-setup` unpacks what Debian does not have.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = PathBuf::from("target/bench-peers");
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), unpacked])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .and_then(|path| path.canonicalize().ok())
}

fn bundle_config(tree: &Path, args: &[&str]) -> Value {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let map = json!([{ "containerID": 0, "hostID": 0x7000_0000_u32, "size": 65_536 }]);
    let denied: &[&str] = &[
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "bpf",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "perf_event_open",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "reboot",
        "swapon",
        "swapoff",
        "mount",
        "umount2",
        "pivot_root",
        "setns",
        "unshare",
        "acct",
        "quotactl",
        "syslog",
        "settimeofday",
        "clock_settime",
        "iopl",
        "ioperm",
        "open_by_handle_at",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
        "personality",
        "chroot",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "ambient": [] },
            "noNewPrivileges": true
        },
        "root": { "path": tree, "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ],
        "linux": {
            "uidMappings": map,
            "gidMappings": map,
            "namespaces": namespaces,
            "resources": { "pids": { "limit": 4096 }, "memory": { "limit": 4_294_967_296_u64 } },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": denied, "action": "SCMP_ACT_ERRNO" }]
            }
        }
    })
}
