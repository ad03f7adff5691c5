//! Files of `/etc` that are written anew, the same on every machine.

use std::{fs, path::Path};

use crate::{error::Result, files};

// The guest answers names on the loopback; while egress is closed nothing listens there and
// lookups fail at once.
const RESOLV: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\ngshadow: files\n\
hosts: files dns\nnetworks: files\nprotocols: db files\nservices: db files\n\
ethers: db files\nrpc: db files\n";
const PROFILE: &str = "# Login shells of the Bourne family.\n\
if [ \"$(id -u)\" -eq 0 ]; then\n  \
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nelse\n  \
PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\nfi\nexport PATH\n\
if [ -n \"$BASH_VERSION\" ] && [ -f /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi\n\
for part in /etc/profile.d/*.sh; do\n  if [ -r \"$part\" ]; then . \"$part\"; fi\ndone\nunset part\n";
const BASHRC: &str = "# Interactive shells.\n[ -z \"$PS1\" ] && return\nshopt -s checkwinsize\n\
PS1='\\u@\\h:\\w\\$ '\n";
// Accounts have no passwords, so authentication has nobody to ask: root may become anybody
// (pam_rootok in each service), others may not.
const PAM_AUTH: &str = "auth [success=1 default=ignore] pam_unix.so\n\
auth requisite pam_deny.so\nauth required pam_permit.so\n";
const PAM_ACCOUNT: &str = "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n\
account requisite pam_deny.so\naccount required pam_permit.so\n";
const PAM_PASSWORD: &str = "password [success=1 default=ignore] pam_unix.so obscure yescrypt\n\
password requisite pam_deny.so\npassword required pam_permit.so\n";
const PAM_SESSION: &str = "session [default=1] pam_permit.so\nsession requisite pam_deny.so\n\
session required pam_permit.so\nsession required pam_unix.so\n";

/// Written whatever the host has. `hostname` and `hosts` are made at each boot.
const ALWAYS: [(&str, &str); 16] = [
    ("default/locale", "LANG=C.UTF-8\n"),
    ("environment", ""),
    ("fstab", "# A workspace's mounts are made from outside.\n"),
    ("motd", ""),
    ("networks", "loopback 127.0.0.0\n"),
    ("nsswitch.conf", NSSWITCH),
    ("pam.d/common-account", PAM_ACCOUNT),
    ("pam.d/common-auth", PAM_AUTH),
    ("pam.d/common-password", PAM_PASSWORD),
    ("pam.d/common-session", PAM_SESSION),
    ("pam.d/common-session-noninteractive", PAM_SESSION),
    ("profile", PROFILE),
    ("resolv.conf", RESOLV),
    ("security/opasswd", ""),
    ("timezone", "Etc/UTC\n"),
    ("host.conf", "multi on\n"),
];

/// Written when no package's own unchanged file is there.
const WHEN_ABSENT: [(&str, &str); 8] = [
    ("bash.bashrc", BASHRC),
    ("ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n"),
    (
        "protocols",
        "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\nipv6-icmp 58 IPv6-ICMP\n",
    ),
    ("security/access.conf", ""),
    ("security/group.conf", ""),
    ("security/limits.conf", ""),
    ("security/time.conf", ""),
    (
        "services",
        "ssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\nhttps 443/tcp\nhttps 443/udp\n",
    ),
];

const SHELLS: [&str; 8] = [
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/usr/bin/sh",
    "/usr/bin/bash",
    "/usr/bin/dash",
    "/usr/bin/zsh",
    "/usr/bin/fish",
];

/// Writes them.
pub(super) fn write(root: &Path, tree: &Path) -> Result<()> {
    let etc = tree.join("etc");
    for (name, text) in ALWAYS {
        let path = etc.join(name);
        files::make_dirs(tree, path.parent().expect("below etc"))?;
        files::remove_any(&path)?;
        files::write_file(&path, text.as_bytes(), 0o644)?;
    }
    for (name, text) in WHEN_ABSENT {
        let path = etc.join(name);
        if fs::symlink_metadata(&path).is_err() {
            files::make_dirs(tree, path.parent().expect("below etc"))?;
            files::write_file(&path, text.as_bytes(), 0o644)?;
        }
    }
    let shells: Vec<&str> = SHELLS
        .into_iter()
        .filter(|shell| root.join(shell.trim_start_matches('/')).exists())
        .chain([""])
        .collect();
    let shells = shells.join("\n");
    files::remove_any(&etc.join("shells"))?;
    files::write_file(&etc.join("shells"), shells.as_bytes(), 0o644)?;
    for dir in ["profile.d", "opt", "skel", "ssl/private"] {
        let mode = if dir == "ssl/private" { 0o710 } else { 0o755 };
        files::make_dirs(tree, &etc.join(dir))?;
        files::make_dir(&etc.join(dir), mode)?;
    }
    let link = |target: &str, name: &str| {
        files::remove_any(&etc.join(name))?;
        files::make_link(target, &etc.join(name))
    };
    link("/usr/share/zoneinfo/Etc/UTC", "localtime")?;
    link("../proc/self/mounts", "mtab")?;
    if root.join("usr/lib/os-release").exists() {
        link("../usr/lib/os-release", "os-release")?;
    }
    Ok(())
}
