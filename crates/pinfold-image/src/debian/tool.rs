//! The command lines: mmdebstrap, or debootstrap where only that is installed.

use std::{ffi::OsString, path::Path};

use pinfold_types::{Error, ErrorCode, Mode};
use tokio::process::Command;

use super::{Wanted, sources::Sources};
use crate::{error::Result, host::apt};

/// Makes the user `agent` and its directory; `$1` is the new root.
const AGENT: &str = "chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash agent && \
chroot \"$1\" install -d -o agent -g agent /workspace";

/// Makes apt inside trust the keys of the archive.
const TRUST: &str = "--customize-hook=install -D -m 0644 \"$KEYRING\" \
\"$1/etc/apt/trusted.gpg.d/mirror.gpg\"";

/// Waits for the id maps, becomes root inside (an unprivileged id outside), and keeps temporary
/// files in the directory it was started in, since it may write nowhere else.
const ENTER: &str = "echo ready >&2; read -r go; \
exec setpriv --reuid 0 --regid 0 --clear-groups sh -c \
'mount -c --bind . /tmp && cd / && exec \"$@\" </dev/null' sh \"$@\"";

/// debootstrap(8) and what mmdebstrap does around it: the release, updates and further packages
/// by apt, nothing left of the work, one tar. `$1` suite, `$2` archive, `$3` keyring, `$4` lines
/// of sources.list, `$5` packages, `$6` `agent` or nothing, `$7` `own` for a keyring that is not
/// Debian's. debootstrap cannot make device nodes
/// in a user namespace; it uses those that are there, so this machine's are bound in.
const DEBOOTSTRAP: &str = r#"
set -eu
root=/tmp/root
mkdir -p "$root/dev/pts" "$root/dev/shm"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
https=
case "$2" in https:*) https=--include=ca-certificates ;; esac
container=lxc debootstrap --variant=minbase --force-check-gpg --keyring="$3" $https "$1" "$root" "$2" >&2
printf '%s\n' "$4" >"$root/etc/apt/sources.list"
if [ "$7" = own ]; then
    install -D -m 0644 "$3" "$root/etc/apt/trusted.gpg.d/mirror.gpg"
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
chroot "$root" apt-get update >&2
chroot "$root" apt-get --yes --no-install-recommends upgrade >&2
if [ -n "$5" ]; then
    chroot "$root" apt-get --yes --no-install-recommends install $5 >&2
fi
if [ "$6" = agent ]; then
    set -- "$root"
    agent_hook
fi
umount "$root/proc"
for node in null zero full random urandom tty; do
    umount "$root/dev/$node"
done
find "$root/dev" "$root/run" "$root/tmp" "$root/var/lib/apt/lists" "$root/var/cache/apt" \
    -mindepth 1 -delete
mkdir -p "$root/run/lock" "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
chmod 1777 "$root/run/lock"
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/hostname" "$root/etc/resolv.conf" \
    "$root/var/log/bootstrap.log" "$root/var/log/dpkg.log" "$root/var/log/apt/term.log" \
    "$root/var/log/apt/history.log" "$root/etc/machine-id"
: >"$root/etc/machine-id"
exec tar --create --one-file-system --numeric-owner --xattrs --directory "$root" .
"#;

/// A program that makes Debians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Mmdebstrap,
    Debootstrap,
}

impl Tool {
    /// The better one of those that are installed.
    pub(super) fn installed(mode: Mode) -> Result<Self> {
        let missing = |what: &str, package: &str| {
            Error::new(ErrorCode::Unavailable, format!("{what}, and it makes Debian images"))
                .hint(format!("apt-get install {package}"))
        };
        if !find("unshare") || !find("setpriv") {
            return Err(missing("unshare is not installed", "util-linux").into());
        }
        if find("mmdebstrap") {
            return Ok(Self::Mmdebstrap);
        }
        if mode == Mode::User {
            return Err(missing("mmdebstrap is not installed", "mmdebstrap uidmap").into());
        }
        if find("debootstrap") && Path::new(apt::DEBIAN_KEYRING).is_file() {
            return Ok(Self::Debootstrap);
        }
        Err(missing("mmdebstrap is not installed", "mmdebstrap").into())
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mmdebstrap => "mmdebstrap",
            Self::Debootstrap => "debootstrap",
        }
    }

    /// The command line. Its first line of standard error is `ready`; it goes on when standard
    /// input has a line. The tar goes to standard output.
    pub(super) fn command(self, mode: Mode, wanted: &Wanted, sources: &Sources) -> Command {
        let mut command;
        match mode {
            Mode::Root => {
                command = Command::new("unshare");
                // Capabilities are kept over the exec until the map is written.
                command
                    .args(["--keep-caps", "--user", "--mount", "--pid", "--fork", "--kill-child"])
                    .args(["--ipc", "--uts", "--", "sh", "-c", ENTER, "sh"]);
            }
            Mode::User => {
                command = Command::new("sh");
                command.args(["-c", "echo ready >&2; read -r go; exec \"$@\" </dev/null", "sh"]);
            }
        }
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/");
        match self {
            Self::Mmdebstrap => mmdebstrap(&mut command, mode, wanted, sources),
            Self::Debootstrap => debootstrap(&mut command, wanted, sources),
        }
        command
    }
}

fn mmdebstrap(command: &mut Command, mode: Mode, wanted: &Wanted, sources: &Sources) {
    let mode = if mode == Mode::Root { "--mode=root" } else { "--mode=unshare" };
    command.args(["mmdebstrap", mode, "--verbose", "--variant=minbase", "--format=tar"]);
    if let Some(keyring) = &sources.keyring {
        let mut option = OsString::from("--keyring=");
        option.push(keyring);
        command.arg(option);
        // A hook with a space in it is run by sh, with the root as `$1`; the path comes in by the
        // environment, because it may have any character.
        command.env("KEYRING", keyring);
        command.arg(TRUST);
    }
    if !wanted.packages.is_empty() {
        command.arg(format!("--include={}", wanted.packages.join(",")));
    }
    if wanted.agent {
        command.arg(format!("--customize-hook={AGENT}"));
    }
    command.arg(&wanted.suite).arg("-").args(sources.lines());
}

fn debootstrap(command: &mut Command, wanted: &Wanted, sources: &Sources) {
    let keyring = sources.keyring.clone().unwrap_or_else(|| apt::DEBIAN_KEYRING.into());
    let script = DEBOOTSTRAP.replace("agent_hook", AGENT);
    command
        .args(["sh", "-c", &script, "debootstrap"])
        .args([wanted.suite.as_str(), sources.first()])
        .arg(keyring)
        .arg(sources.lines().join("\n"))
        .arg(wanted.packages.join(" "))
        .arg(if wanted.agent { "agent" } else { "" })
        .arg(if sources.keyring.is_some() { "own" } else { "" });
}

fn find(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).is_file())
}

/// The proxies that this machine's apt uses, as the environment of a command. They are not put
/// into options, which would leave them, and what they may hold, in the image.
pub(super) async fn proxies() -> Vec<(String, String)> {
    let asked = Command::new("apt-config")
        .args(["dump", "--format", "%f=%v%n", "Acquire::http::Proxy", "Acquire::https::Proxy"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let text = asked.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    ["http", "https"]
        .into_iter()
        .filter_map(|scheme| {
            let variable = format!("{scheme}_proxy");
            let own = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("Acquire::{scheme}::Proxy=")))
                .map(str::to_owned);
            let value = own.or_else(|| std::env::var(&variable).ok())?;
            let usable = value != "DIRECT" && !value.is_empty() && value.len() < 4096;
            usable.then_some((variable, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::Source, *};

    fn line(tool: Tool, mode: Mode) -> Vec<String> {
        let source = |suite: &str| Source { uri: "http://a.org/d".into(), suite: suite.into() };
        let sources = Sources { list: vec![source("sid"), source("sid-updates")], keyring: None };
        let wanted = Wanted {
            suite: "sid".into(),
            packages: vec!["git".into(), "jq".into()],
            mirror: None,
            agent: true,
        };
        let command = tool.command(mode, &wanted, &sources);
        let words = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect()
    }

    #[test]
    fn the_tools_run_in_namespaces_with_what_was_asked_for() {
        let root = line(Tool::Mmdebstrap, Mode::Root);
        assert!(root.contains(&"--user".to_owned()) && root.contains(&"--mode=root".to_owned()));
        assert!(root.contains(&"--include=git,jq".to_owned()), "{root:?}");
        assert!(root.ends_with(&[
            "sid".to_owned(),
            "-".to_owned(),
            "deb http://a.org/d sid main".to_owned(),
            "deb http://a.org/d sid-updates main".to_owned(),
        ]));
        assert!(line(Tool::Mmdebstrap, Mode::User).contains(&"--mode=unshare".to_owned()));
        let other = line(Tool::Debootstrap, Mode::Root);
        assert!(other.contains(&"--user".to_owned()));
        assert!(other.ends_with(&[
            "sid".to_owned(),
            "http://a.org/d".to_owned(),
            apt::DEBIAN_KEYRING.to_owned(),
            "deb http://a.org/d sid main\ndeb http://a.org/d sid-updates main".to_owned(),
            "git jq".to_owned(),
            "agent".to_owned(),
            String::new(),
        ]));
    }
}
