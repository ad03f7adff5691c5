//! What the mode that this process is not in has on this machine.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use pinfold_types::{
    Mode,
    api::{Finding, Verdict},
};

use super::finding;

/// Switches by which a kernel denies user namespaces to ordinary users, with the value that
/// does, what to set instead, and which kernels have them.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=65536"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];
const MAPPERS: [&str; 2] = ["newuidmap", "newgidmap"];

/// Says what the other mode would have here.
pub(super) fn mode_of_others(own: Mode) -> Finding {
    match own {
        Mode::User => finding(
            "isolation",
            "as root",
            Verdict::Ok,
            "also limits of memory, CPU, processes and disk, a range of ids for each workspace, \
             and forks without copying",
        ),
        Mode::Root => as_an_ordinary_user(Path::new("/")),
    }
}

fn as_an_ordinary_user(root: &Path) -> Finding {
    let check = "as an ordinary user";
    let missing = |detail: String, mend: String| Finding {
        mend: Some(mend),
        ..finding("isolation", check, Verdict::Degraded, detail)
    };
    for (switch, denies, mend) in SWITCHES {
        let value = fs::read_to_string(root.join("proc/sys").join(switch)).unwrap_or_default();
        if value.trim() == denies {
            let detail = format!("the kernel denies user namespaces: {switch} is {denies}");
            return missing(detail, format!("sysctl -w {mend}"));
        }
    }
    let directories = ["usr/bin", "bin", "usr/local/bin"];
    for program in MAPPERS {
        let found = directories
            .iter()
            .find_map(|directory| fs::metadata(root.join(directory).join(program)).ok());
        let Some(found) = found else {
            return missing(format!("{program} is not there"), "apt-get install uidmap".into());
        };
        // Some distributions give it a file capability in place of the set-user-id bit.
        if found.mode() & 0o111 == 0 {
            let detail = format!("{program} cannot be executed");
            return missing(detail, "apt-get install --reinstall uidmap".into());
        }
    }
    finding(
        "isolation",
        check,
        Verdict::Ok,
        "the same walls for whoever has a range of sub-ids; limits of memory, CPU and processes \
         where cgroup v2 is delegated, none of disk",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_an_ordinary_user_lacks_is_said_with_its_mend() {
        let root = tempfile::tempdir().unwrap();
        let mend = |root: &Path| as_an_ordinary_user(root).mend.unwrap_or_default();
        assert_eq!(mend(root.path()), "apt-get install uidmap");
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        for program in MAPPERS {
            let path = root.path().join("usr/bin").join(program);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        assert_eq!(as_an_ordinary_user(root.path()).verdict, Verdict::Ok);
        for (switch, denies, wanted) in SWITCHES {
            let path = root.path().join("proc/sys").join(switch);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{denies}\n")).unwrap();
            assert_eq!(mend(root.path()), format!("sysctl -w {wanted}"));
            fs::remove_file(&path).unwrap();
        }
    }
}
