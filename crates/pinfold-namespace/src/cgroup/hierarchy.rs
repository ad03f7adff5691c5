//! Which hierarchies are mounted, where this process is in them, and what they can limit.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pinfold_types::{WorkspaceId, limits::LimitKind};

/// Controllers of v1 that a workspace uses where they are there.
const WANTED_V1: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "freezer"];
/// Controllers of v2 that a workspace uses where they are there.
const WANTED_V2: [&str; 3] = ["memory", "pids", "cpu"];
/// Most directories looked at when searching for groups of an earlier server.
const SEARCH_LIMIT: usize = 4096;
/// How deep below the mount such a search goes.
const SEARCH_DEPTH: usize = 4;

/// A place under which workspaces' groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// The controller of a v1 hierarchy, `unified` for v2.
    pub name: String,
    /// Directory that holds one directory a workspace.
    pub directory: PathBuf,
    /// The hierarchy's mount point.
    mount: PathBuf,
}

/// All hierarchies in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchies {
    pub v1: Vec<Base>,
    pub unified: Option<Base>,
    /// Controllers enabled for groups of the v2 base.
    pub unified_controllers: BTreeSet<String>,
    /// Directories of an earlier server of this home that ran in other groups.
    pub earlier: Vec<Base>,
    /// Hierarchies that are mounted and cannot be used, by controller, with the reason.
    unusable: Vec<(String, String)>,
}

impl Hierarchies {
    pub(crate) fn detect(home_tag: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let tag = format!("pinfold-{}", safe_tag(home_tag));
        let mut found = Self::default();
        let places = places(&mounts, &own);
        for place in &places {
            match place.prepare(&tag) {
                Ok((base, controllers)) if place.name == "unified" => {
                    found.unified = Some(base);
                    found.unified_controllers = controllers;
                }
                Ok((base, _)) => found.v1.push(base),
                Err(error) => {
                    found.unusable.push((place.name.clone(), error));
                }
            }
        }
        found.earlier = found.search(&tag);
        found.leave_to_unified();
        found
    }

    /// Every v2 group freezes, kills and counts CPU time without any controller (Linux 5.14), so
    /// the v1 hierarchies for that would only make launches slower.
    fn leave_to_unified(&mut self) {
        let able = self.unified.as_ref().is_some_and(|base| {
            ["cgroup.freeze", "cgroup.kill", "cpu.stat"]
                .iter()
                .all(|file| base.directory.join(file).exists())
        });
        if able {
            let (gone, kept) = std::mem::take(&mut self.v1)
                .into_iter()
                .partition(|base| base.name == "freezer" || base.name == "cpuacct");
            self.v1 = kept;
            // Groups an earlier version made there are still found and removed.
            let gone: Vec<Base> = gone;
            for base in &gone {
                let _ = fs::remove_dir(&base.directory);
            }
            self.earlier.extend(gone);
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.v1.iter().any(|base| base.name != "freezer" && base.name != "cpuacct") {
            "v1"
        } else if self.unified.is_some() && !self.unified_controllers.is_empty() {
            "v2"
        } else {
            "none"
        }
    }

    pub(crate) fn reasons(&self) -> Vec<String> {
        if self.unusable.is_empty() {
            return vec!["no cgroup filesystem is mounted".into()];
        }
        self.unusable.iter().map(|(_, why)| why.clone()).collect()
    }

    /// Why nothing here has `controller`, and the mend, with `; ` between them.
    fn lacks(&self, controller: &str) -> String {
        let of = |name: &str| self.unusable.iter().find(|(known, _)| known == name);
        let in_v1 = of(controller);
        let why = match in_v1.or_else(|| of("unified")) {
            Some((_, why)) => {
                format!("no cgroup with the {controller} controller can be made here ({why})")
            }
            None => format!("no mounted cgroup hierarchy has the {controller} controller"),
        };
        let delegated = "start the server in a delegated group: `systemd-run --user --scope -p \
                         Delegate=yes pinfold up`";
        let mend = if rustix::process::geteuid().is_root() {
            format!("mount it, or boot with cgroup_enable={controller}")
        } else if in_v1.is_some() {
            // Only groups of v2 are delegated to users.
            format!(
                "run the server as root, or boot this machine with cgroup v2 \
                 (systemd.unified_cgroup_hierarchy=1) and {delegated}"
            )
        } else {
            delegated.into()
        };
        format!("{why}; {mend}")
    }

    /// Whether no group can be made, nor was by an earlier server.
    pub(crate) fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.unified.is_none() && self.earlier.is_empty()
    }

    pub(crate) fn base(&self, controller: &str) -> Option<&Base> {
        self.v1.iter().find(|base| base.name == controller)
    }

    pub(crate) fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        let (controller, v1_file, v2_file) = match kind {
            LimitKind::Memory => ("memory", "memory.limit_in_bytes", "memory.max"),
            LimitKind::Swap => ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
            LimitKind::Cpu => ("cpu", "cpu.cfs_quota_us", "cpu.max"),
            LimitKind::CpuWeight => ("cpu", "cpu.shares", "cpu.weight"),
            LimitKind::Pids => ("pids", "pids.max", "pids.max"),
            _ => return Err("not a limit of cgroups".into()),
        };
        if let Some(base) = self.base(controller) {
            // The base directory is itself a group, not the root one, so it has every file.
            if base.directory.join(v1_file).exists() {
                return Ok(format!("cgroup v1 {controller}"));
            }
            return Err(match kind {
                LimitKind::Swap => "the kernel does not count swap in cgroup v1; boot it with \
                                    swapaccount=1"
                    .into(),
                _ => format!("the kernel's cgroup v1 {controller} has no {v1_file}"),
            });
        }
        if let Some(base) = &self.unified
            && self.unified_controllers.contains(controller)
        {
            if base.directory.join(v2_file).exists() {
                return Ok(format!("cgroup v2 {controller}"));
            }
            return Err(format!("the kernel's cgroup v2 {controller} has no {v2_file}"));
        }
        Err(self.lacks(controller))
    }

    pub(crate) fn list(&self) -> Vec<WorkspaceId> {
        let all = self.v1.iter().chain(&self.unified).chain(&self.earlier);
        let names: BTreeSet<WorkspaceId> = all
            .filter_map(|base| fs::read_dir(&base.directory).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        names.into_iter().collect()
    }

    /// A server started from another session is in other groups than the one before it, whose
    /// workspaces live on where they were made.
    fn search(&self, tag: &str) -> Vec<Base> {
        let mut found = Vec::new();
        for base in self.v1.iter().chain(&self.unified) {
            let mut pending = vec![(base.mount.clone(), 0)];
            let mut looked_at = 0;
            while let Some((directory, depth)) = pending.pop() {
                for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                    if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        continue;
                    }
                    looked_at += 1;
                    let path = entry.path();
                    if entry.file_name() == tag {
                        if path != base.directory {
                            found.push(Base {
                                name: base.name.clone(),
                                directory: path,
                                mount: base.mount.clone(),
                            });
                        }
                    } else if depth < SEARCH_DEPTH && looked_at < SEARCH_LIMIT {
                        pending.push((path, depth + 1));
                    }
                }
            }
        }
        found
    }
}

/// Letters, digits and hyphens of the tag, at most 32.
fn safe_tag(tag: &str) -> String {
    tag.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect()
}

/// A mounted hierarchy and this process's group in it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    name: String,
    mount: PathBuf,
    own: PathBuf,
}

impl Place {
    fn prepare(&self, tag: &str) -> Result<(Base, BTreeSet<String>), String> {
        if self.name == "unified" {
            return self.prepare_unified(tag);
        }
        let directory = self.own.join(tag);
        make(&directory)?;
        Ok((self.base(directory), BTreeSet::new()))
    }

    /// In v2 a group either holds processes or gives controllers to groups below it, the root
    /// excepted. So the tag's directory goes to the root where that may be written, else below
    /// the own group, out of which this process moves into a leaf of its own.
    fn prepare_unified(&self, tag: &str) -> Result<(Base, BTreeSet<String>), String> {
        let mut failures = Vec::new();
        for parent in [&self.mount, &self.own] {
            let available = words(&parent.join("cgroup.controllers"));
            let wanted: Vec<&str> =
                WANTED_V2.into_iter().filter(|name| available.contains(*name)).collect();
            let directory = parent.join(tag);
            let result = make(&directory).and_then(|()| {
                if parent == &self.own && parent != &self.mount && !wanted.is_empty() {
                    step_into_leaf(parent)?;
                }
                enable(parent, &wanted)?;
                enable(&directory, &wanted)
            });
            match result {
                Ok(()) => {
                    let enabled = words(&directory.join("cgroup.subtree_control"));
                    return Ok((self.base(directory), enabled));
                }
                Err(error) => {
                    let _ = fs::remove_dir(&directory);
                    failures.push(error);
                }
            }
            if self.mount == self.own {
                break;
            }
        }
        Err(failures.join("; "))
    }

    fn base(&self, directory: PathBuf) -> Base {
        Base { name: self.name.clone(), directory, mount: self.mount.clone() }
    }
}

fn make(directory: &Path) -> Result<(), String> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(format!("making {}: {error}", directory.display())),
    }
}

fn enable(group: &Path, controllers: &[&str]) -> Result<(), String> {
    let file = group.join("cgroup.subtree_control");
    for controller in controllers {
        fs::write(&file, format!("+{controller}"))
            .map_err(|error| format!("enabling {controller} in {}: {error}", file.display()))?;
    }
    Ok(())
}

fn step_into_leaf(group: &Path) -> Result<(), String> {
    let leaf = group.join("pinfold-server");
    make(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")
        .map_err(|error| format!("moving the server into {}: {error}", leaf.display()))
}

fn words(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Joins `/proc/self/mountinfo` (proc(5)) and `/proc/self/cgroup` (cgroups(7)).
fn places(mountinfo: &str, own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let ([_, _, _, root, mount, ..], [kind, _, options]) = (front.as_slice(), back.as_slice())
        else {
            continue;
        };
        let mut add = |name: &str, member: Option<String>| {
            let Some(member) = member else { return };
            if places.iter().any(|known| known.name == name) {
                return;
            }
            // The mount may show a part of the hierarchy, from `root` down.
            let below = member.strip_prefix(root.trim_end_matches('/')).unwrap_or("/");
            let mount = PathBuf::from(mount);
            let own = mount.join(below.trim_start_matches('/'));
            places.push(Place { name: name.to_owned(), mount, own });
        };
        match *kind {
            "cgroup2" => add("unified", membership(own, None)),
            "cgroup" => {
                for controller in WANTED_V1 {
                    if options.split(',').any(|option| option == controller) {
                        add(controller, membership(own, Some(controller)));
                    }
                }
            }
            _ => {}
        }
    }
    places
}

/// This process's group in the hierarchy of `controller`, or in v2.
fn membership(own: &str, controller: Option<&str>) -> Option<String> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let this = match controller {
            Some(name) => controllers.split(',').any(|known| known == name),
            None => number == "0" && controllers.is_empty(),
        };
        this.then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machines_are_read_right() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 /part /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let own = "4:memory:/a/b\n3:pids:/part/c\n2:cpu,cpuacct:/\n0::/d\n";
        let found = places(mountinfo, own);
        let own_of = |name: &str| {
            found.iter().find(|place| place.name == name).map(|place| place.own.to_str().unwrap())
        };
        assert_eq!(own_of("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(own_of("cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(own_of("memory"), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(own_of("pids"), Some("/sys/fs/cgroup/pids/c"));
        assert_eq!(own_of("unified"), Some("/sys/fs/cgroup/unified/d"));
        assert_eq!(own_of("freezer"), None);
    }

    #[test]
    fn garbage_yields_nothing() {
        assert!(places("no separator\n1 2 - cgroup\n", "x").is_empty());
        assert_eq!(safe_tag("../a b\n-1"), "ab-1");
    }
}
