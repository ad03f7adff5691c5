//! What stands on this machine: findings for `pinfold doctor`, by really trying.
//!
//! A throw-away workspace is launched by the very launcher that serves real ones. Its guest is
//! the launcher's own program in another role ([`crate::helper::main`]), which looks at the walls
//! from inside and tries to step over them.

mod inside;
mod other;

use std::{
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use pinfold_types::{
    Error, Mode, RootMount, WorkspaceId,
    api::{Finding, Verdict},
    limits::ResourceLimits,
};

use inside::ROLE;
pub(crate) use inside::run as run_inside;

use crate::{
    Cgroups, IdRange, LaunchSpec, Launcher, LauncherOptions, cgroup, helper::NEWEST_LANDLOCK,
    identity, subids,
};

/// First id of the probe's range as root: far above every range that workspaces get.
const PROBE_BASE: u32 = 4_000_000_000;

fn finding(area: &str, check: &str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { area: area.into(), check: check.into(), verdict, detail: detail.into(), mend: None }
}

/// Tries every wall and limit. `binary` is the launcher, `home` a directory on the filesystem
/// that will hold the workspaces; a directory is made in it and removed again.
pub async fn probe(binary: &Path, home: &Path) -> Vec<Finding> {
    let mut findings = isolation(binary, home).await;
    findings.extend(limits());
    findings
}

async fn isolation(binary: &Path, home: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mode = crate::mode();
    findings.push(finding("isolation", "mode", Verdict::Ok, mode.as_str()));
    findings.push(other::mode_of_others(mode));
    let ids = match mode {
        Mode::Root => Ok(IdRange { base: PROBE_BASE, count: 65_536 }),
        Mode::User => subids::sub_ids(),
    };
    let ids = match ids {
        Ok(ids) => {
            let detail = format!("{} ids from {}", ids.count, ids.base);
            findings.push(finding("isolation", "id range", Verdict::Ok, detail));
            ids
        }
        Err(error) => {
            findings.push(failed("id range", &error));
            return findings;
        }
    };
    let ground = match Ground::make(home) {
        Ok(ground) => ground,
        Err(error) => {
            let mut missing =
                finding("isolation", "probe directory", Verdict::Missing, error.to_string());
            missing.mend = Some(format!("make {} writable", home.display()));
            findings.push(missing);
            return findings;
        }
    };
    match ground.look(binary, ids).await {
        Ok(seen) => findings.extend(seen),
        Err(error) => findings.push(failed("throw-away workspace", &error)),
    }
    findings
}

fn failed(check: &str, error: &Error) -> Finding {
    let mut missing = finding("isolation", check, Verdict::Missing, error.message.clone());
    missing.mend.clone_from(&error.hint);
    missing
}

/// A directory with an empty image and disk, removed with the value.
struct Ground(PathBuf);

impl Drop for Ground {
    fn drop(&mut self) {
        // Only what `make` made and the probe's guest left: a handful of directories.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ground {
    fn make(home: &Path) -> std::io::Result<Self> {
        let ground = Self(home.join(format!("probe-{}", WorkspaceId::generate())));
        std::fs::create_dir(&ground.0)?;
        std::fs::set_permissions(&ground.0, std::fs::Permissions::from_mode(0o700))?;
        for name in ["image", "disk", "disk/upper", "disk/upper/0", "disk/work", "disk/work/0"] {
            let directory = ground.0.join(name);
            std::fs::create_dir(&directory)?;
            // In user mode these are the user's, who is nobody inside; the parent is closed.
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777))?;
        }
        Ok(ground)
    }

    async fn look(&self, binary: &Path, ids: IdRange) -> Result<Vec<Finding>, Error> {
        let options = LauncherOptions { binary: binary.to_owned(), home_tag: "doctor".into() };
        let helper = Launcher::start(options).await?;
        let socket = self.0.join("sock");
        let spec = LaunchSpec {
            workspace: WorkspaceId::generate(),
            boot: 1,
            hostname: "probe".into(),
            mounts: vec![RootMount {
                target: "/".into(),
                lowers: vec![self.0.join("image")],
                writable: true,
                idmapped: crate::mode() == Mode::Root,
            }],
            disk: self.0.join("disk"),
            guest: binary.to_owned(),
            socket: socket.clone(),
            guest_config: ROLE.to_vec(),
            ids,
            cgroup: None,
            nested: false,
            open_files: None,
            volatile: false,
            shm_bytes: 1 << 20,
        };
        let launched = helper.launch(spec).await?;
        let pid = launched.pid;
        let started = launched.start_time;
        let report = tokio::task::spawn_blocking(move || ask(&socket)).await;
        // It ends by itself after one answer; a guest that hangs does not outlive the probe.
        if identity::process_matches(pid, started) {
            let _ =
                rustix::process::pidfd_send_signal(&launched.pidfd, rustix::process::Signal::KILL);
        }
        helper.shutdown().await;
        let report = report.map_err(Error::internal)?.map_err(Error::internal)?;
        let mut findings = vec![finding(
            "isolation",
            "namespaces",
            Verdict::Ok,
            launched.walls.namespaces.join(" "),
        )];
        if crate::mode() == Mode::Root {
            let detail = "layers and disk are mounted with mapped owners";
            findings.push(finding("isolation", "idmapped mounts", Verdict::Ok, detail));
        } else {
            let detail = "newuidmap and newgidmap mapped the range";
            findings.push(finding("isolation", "sub-ids", Verdict::Ok, detail));
        }
        findings.push(landlock(launched.walls.landlock_abi));
        findings.extend(report);
        Ok(findings)
    }
}

fn landlock(abi: u32) -> Finding {
    let mut found = match abi {
        0 => finding(
            "isolation",
            "landlock",
            Verdict::Degraded,
            "this kernel has no Landlock; all other walls stand",
        ),
        abi => finding(
            "isolation",
            "landlock",
            Verdict::Ok,
            format!("kernel ABI {abi}, used up to {NEWEST_LANDLOCK}"),
        ),
    };
    if abi == 0 {
        found.mend = Some("boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,…".into());
    }
    found
}

fn ask(socket: &Path) -> std::io::Result<Vec<Finding>> {
    /// Longest wait for the inside look, which takes milliseconds.
    const PATIENCE: Duration = Duration::from_secs(10);
    const MOST: u64 = 64 << 10;
    // The directory may be deep: dial by descriptor, as the socket was bound.
    let directory = std::fs::File::open(socket.parent().unwrap_or(socket))?;
    let name = socket.file_name().unwrap_or_default();
    let near = Path::new("/proc/self/fd")
        .join(std::os::fd::AsRawFd::as_raw_fd(&directory).to_string())
        .join(name);
    let stream = UnixStream::connect(near)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(MOST).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Really makes a group with a limit of each kind, reads them back and removes it.
fn limits() -> Vec<Finding> {
    let cgroups = Cgroups::detect("doctor");
    let found = cgroup::KINDS.iter().map(|kind| {
        let check = kind.field();
        match cgroups.enforceable(*kind) {
            Ok(by) => {
                let mut limits = ResourceLimits::default();
                limits.set(*kind, Some(64 << 20));
                if matches!(
                    kind,
                    pinfold_types::limits::LimitKind::Cpu
                        | pinfold_types::limits::LimitKind::CpuWeight
                        | pinfold_types::limits::LimitKind::Pids
                ) {
                    limits.set(*kind, Some(1000));
                }
                let tried = cgroups
                    .create(&WorkspaceId::generate(), &limits)
                    .and_then(|group| group.remove());
                match tried {
                    Ok(()) => finding("limits", check, Verdict::Ok, by),
                    Err(error) => {
                        let mut bad = finding("limits", check, Verdict::Missing, error.message);
                        bad.mend = error.hint;
                        bad
                    }
                }
            }
            Err(why) => {
                let (detail, mend) = why.split_once("; ").unwrap_or((&why, ""));
                let mut missing = finding("limits", check, Verdict::Missing, detail);
                missing.mend = (!mend.is_empty()).then(|| mend.to_owned());
                missing
            }
        }
    });
    let mut findings: Vec<Finding> =
        vec![finding("limits", "cgroups", verdict_of(&cgroups), cgroups.kind())];
    findings.extend(found);
    cgroups.remove_base();
    findings
}

fn verdict_of(cgroups: &Cgroups) -> Verdict {
    if cgroups.kind() == "none" { Verdict::Missing } else { Verdict::Ok }
}
