//! What a home has on the machine beyond its files: processes, mounts, loop devices, cgroups.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::programs::proc_text;

/// Everything found, empty when nothing is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Process ids.
    pub processes: BTreeSet<i32>,
    /// Mount points in this mount namespace, deepest last.
    pub mounts: Vec<PathBuf>,
    /// Loop devices whose file lies in the home.
    pub loops: Vec<PathBuf>,
    /// Cgroup directories of the home's workspaces.
    pub cgroups: Vec<PathBuf>,
    /// Cgroup directories that hold those, which a server has while it runs.
    pub cgroup_bases: Vec<PathBuf>,
}

impl Leftovers {
    /// Searches the machine.
    pub fn of(home: &Path) -> Self {
        let ids = workspace_ids(home);
        let base = base_name(home);
        let (cgroup_bases, cgroups) = cgroups(home, &ids, &base)
            .into_iter()
            .partition(|path| path.file_name().is_some_and(|name| *name == *base));
        Self {
            processes: processes(home, &ids),
            mounts: mounts(home),
            loops: loops(home),
            cgroups,
            cgroup_bases,
        }
    }

    /// Whether nothing is left of any workspace.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
            && self.mounts.is_empty()
            && self.loops.is_empty()
            && self.cgroups.is_empty()
    }

    /// Ends and removes all of it. For cleaning up after a test, never to make one pass.
    pub fn clear(&self) {
        for pid in &self.processes {
            kill(*pid);
        }
        for pid in &self.processes {
            // Bounded, and without a panic: this runs in drops.
            for _ in 0..500 {
                if is_gone(*pid) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for mount in self.mounts.iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        for device in &self.loops {
            // The unmounting above may have taken it along already.
            let _ = Command::new("losetup").arg("--detach").arg(device).output();
        }
        for cgroup in self.cgroup_bases.iter().chain(&self.cgroups).rev() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A zombie has ended, whoever still has to collect it.
fn is_gone(pid: i32) -> bool {
    proc_text(pid, "stat").is_none_or(|stat| {
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Ids of workspaces that the home has or had a place for.
fn workspace_ids(home: &Path) -> BTreeSet<String> {
    ["run", "pool/disks", "disks"]
        .iter()
        .filter_map(|dir| fs::read_dir(home.join(dir)).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("ws_"))
        .collect()
}

fn processes(home: &Path, ids: &BTreeSet<String>) -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let our_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let sockets = socket_inodes("/proc/net/unix", home);
    let others: Vec<i32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && !is_gone(*pid))
        .collect();
    let (found, rest): (Vec<i32>, Vec<i32>) = others
        .into_iter()
        .partition(|pid| belongs(*pid, home, ids, our_mounts.as_deref(), &sockets));
    let mut found = BTreeSet::from_iter(found);
    // A launcher has nothing of the home but its parent.
    let launchers: Vec<i32> = rest.into_iter().filter(|pid| is_launcher_of(*pid, &found)).collect();
    found.extend(launchers);
    found
}

fn is_launcher_of(pid: i32, servers: &BTreeSet<i32>) -> bool {
    let parent = || {
        let stat = proc_text(pid, "stat")?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    proc_text(pid, "comm").is_some_and(|comm| comm.starts_with("pinfold-launch"))
        && parent().is_some_and(|parent| servers.contains(&parent))
}

/// Whether a process is of this home: its server by its environment, anything in a workspace by
/// its mounts, its cgroup or the socket it listens on.
fn belongs(
    pid: i32,
    home: &Path,
    ids: &BTreeSet<String>,
    our_mounts: Option<&Path>,
    sockets: &BTreeSet<String>,
) -> bool {
    let home = home.to_string_lossy();
    let environment = proc_text(pid, "environ").unwrap_or_default();
    let named =
        environment.split('\0').any(|pair| pair.strip_prefix("PINFOLD_HOME=") == Some(&home));
    if named && proc_text(pid, "comm").is_some_and(|comm| comm.starts_with("pinfold")) {
        return true;
    }
    if proc_text(pid, "cgroup").is_some_and(|text| ids.iter().any(|id| text.contains(id.as_str())))
    {
        return true;
    }
    let directory = Path::new("/proc").join(pid.to_string());
    let elsewhere = fs::read_link(directory.join("ns/mnt")).ok().as_deref() != our_mounts;
    // The pool itself is propagated to other mount namespaces of the machine, init's for one; a
    // workspace has mounts elsewhere that are made of the home's directories.
    let made_of = |line: &str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        line.contains(&*home) && !Path::new(point).starts_with(&*home)
    };
    if elsewhere && proc_text(pid, "mountinfo").is_some_and(|text| text.lines().any(made_of)) {
        return true;
    }
    let theirs = socket_inodes(&format!("/proc/{pid}/net/unix"), Path::new(&*home));
    fs::read_dir(directory.join("fd"))
        .into_iter()
        .flatten()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .any(|link| sockets.contains(&link) || theirs.contains(&link))
}

/// `socket:[inode]` of unix sockets bound below a directory.
fn socket_inodes(table: &str, home: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(6);
            let (inode, path) = (words.next()?, words.next()?);
            Path::new(path).starts_with(home).then(|| format!("socket:[{inode}]"))
        })
        .collect()
}

fn mounts(home: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(home))
        .collect()
}

fn loops(home: &Path) -> Vec<PathBuf> {
    fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let device = Path::new("/dev").join(entry.file_name());
            Path::new(file.trim()).starts_with(home).then_some(device)
        })
        .collect()
}

/// `pinfold-` and FNV-1a (RFC 9923) over the home's path: what the server promises to use.
fn base_name(home: &Path) -> String {
    let bytes = home.as_os_str().as_encoded_bytes();
    let hash = bytes
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("pinfold-{hash:08x}")
}

fn cgroups(home: &Path, ids: &BTreeSet<String>, base: &str) -> Vec<PathBuf> {
    let tag = home.to_string_lossy().into_owned();
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if depth > 6 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if ids.contains(&name) || name == base || (name.len() > 8 && tag.ends_with(&name)) {
                found.push(path.clone());
            }
            open.push((path, depth + 1));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Home;

    #[test]
    fn an_unused_home_leaves_nothing() {
        let home = Home::new();
        assert_eq!(home.leftovers(), Leftovers::default());
        let path = home.path().to_path_buf();
        drop(home);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_listens_in_the_home_is_found_and_ended() {
        let home = Home::new();
        let socket = home.path().join("guest.sock");
        let script = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint('ready', flush=True)\ntime.sleep(600)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&socket)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 is among the packages that setup installs");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("it was piped"));
        std::io::BufRead::read_line(&mut output, &mut line).expect("it says when it listens");
        let pid = i32::try_from(child.id()).expect("a pid fits");
        assert!(home.leftovers().processes.contains(&pid));
        home.leftovers().clear();
        let status = child.wait().expect("our child");
        assert!(!status.success());
        assert!(home.leftovers().is_empty());
    }
}
