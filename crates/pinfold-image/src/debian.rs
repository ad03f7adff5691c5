//! New Debians, by mmdebstrap.
//!
//! The tool and the packages' scripts run in a user namespace of their own, where root is an
//! unprivileged id outside, and in mount, pid, ipc and uts namespaces. They share this machine's
//! network, because apt fetches the packages; apt checks their signatures.

use std::{collections::VecDeque, os::unix::fs::chown, path::Path, process::Stdio, time::Duration};

use pinfold_types::{
    Error, ErrorCode, ImageName, Mode,
    image::{ImageDefaults, ImageInfo, ImageSource},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    error::{ImageError, Result},
    files, host,
    import::{Progress, say},
    pull::blocking,
    store::ImageStore,
};

/// Longest for a whole Debian.
const TIME: Duration = Duration::from_hours(1);
/// First of the 65536 host ids that the tool runs under as root: below those of workspaces
/// (`[workspaces] uid_base`, 0x70000000).
const IDS_BASE: u32 = 0x6fff_0000;
/// How many.
const IDS: u32 = 65_536;
/// Kept of the tool's last words.
const MAX_TAIL_LINES: usize = 12;

/// Makes the user `agent` and its directory; `$1` is the new root.
const AGENT: &str = "chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash agent && \
chroot \"$1\" install -d -o agent -g agent /workspace";

/// Packages of the default image.
const DEFAULT_PACKAGES: [&str; 21] = [
    "build-essential",
    "ca-certificates",
    "curl",
    "file",
    "git",
    "jq",
    "less",
    "nodejs",
    "npm",
    "openssh-client",
    "patch",
    "pkg-config",
    "procps",
    "python3",
    "python3-dev",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "unzip",
    "vim-tiny",
    "xz-utils",
];

/// What Debian is made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub suite: String,
    pub packages: Vec<String>,
    pub mirror: Option<String>,
    /// With the user `agent`.
    pub agent: bool,
}

impl Wanted {
    /// The default image, on the release that this version was tried with.
    pub(crate) fn default_image() -> Self {
        Self {
            suite: "bookworm".into(),
            packages: DEFAULT_PACKAGES.map(str::to_owned).to_vec(),
            mirror: None,
            agent: true,
        }
    }
}

/// Makes one and imports it.
pub(crate) async fn import(
    store: &ImageStore,
    wanted: Wanted,
    name: Option<ImageName>,
    progress: &Progress,
) -> Result<ImageInfo> {
    let suite = wanted.suite.as_str();
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 128
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    if let Some(bad) =
        std::iter::once(suite).chain(wanted.packages.iter().map(String::as_str)).find(|w| !plain(w))
    {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "{:?} is not a release or package of Debian",
                pinfold_types::name::excerpt(bad)
            ),
        )
        .into());
    }
    let sources = sources(store, suite, wanted.mirror.as_deref())?;
    let work = store.layers().draft()?;
    let (tar, room) = (work.tree().join("root.tar"), work.tree().join("tmp"));
    let out = std::fs::File::create(&tar).map_err(ImageError::io("write", &tar))?;
    files::make_dir(&room, 0o700)?;
    let mut command = command(store.mode(), &wanted, &sources)?;
    if store.mode() == Mode::Root {
        chown(&room, Some(IDS_BASE), Some(IDS_BASE))
            .map_err(ImageError::io("change the owner of", &room))?;
        command.current_dir(&room);
    }
    say(progress, format!("making Debian {suite}: this takes a while"));
    let child = command
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ImageError::io("start", "unshare"))?;
    timeout(TIME, run(child, store.mode(), progress)).await.map_err(|_| {
        Error::new(ErrorCode::Timeout, format!("making Debian took over {} s", TIME.as_secs()))
    })??;
    say(progress, "unpacking it");
    let (store, suite) = (store.clone(), wanted.suite);
    blocking(move || {
        let file = std::fs::File::open(&tar).map_err(ImageError::io("open", &tar))?;
        let source = ImageSource::Debian { suite };
        let cwd = wanted.agent.then(|| "/workspace".to_owned());
        let defaults = ImageDefaults { cwd, ..host::defaults() };
        let info = store.import_rootfs(file, source, defaults, name)?;
        drop(work);
        Ok(info)
    })
    .await
}

/// Mirrors, in the form that mmdebstrap takes: one line of sources.list(5) each.
fn sources(store: &ImageStore, suite: &str, mirror: Option<&str>) -> Result<Vec<String>> {
    let configured = store.config().debian_mirror.clone();
    if let Some(mirror) = mirror.map(str::to_owned).or(configured) {
        let url = url::Url::parse(&mirror).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && !mirror.contains(char::is_whitespace)
        });
        let Some(url) = url else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "the Debian mirror must be an http or https URL without credentials",
            )
            .into());
        };
        return Ok(vec![format!("deb {url} {suite} main")]);
    }
    let own: Vec<String> = host::apt::public_sources(Path::new("/"))
        .into_iter()
        .filter(|source| source.uri.contains("debian"))
        .flat_map(|source| {
            let suites: Vec<String> = source
                .suites
                .iter()
                .filter(|known| {
                    known.as_str() == suite
                        || known.strip_prefix(suite).is_some_and(|rest| rest.starts_with('-'))
                })
                .map(|known| format!("deb {} {known} main", source.uri))
                .collect();
            suites
        })
        .collect();
    if own.iter().any(|line| line.ends_with(&format!(" {suite} main"))) {
        return Ok(own);
    }
    Ok(vec![format!("deb http://deb.debian.org/debian {suite} main")])
}

fn find(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).is_file())
}

/// The command line. Its first line of standard error is `ready`; it goes on when standard input
/// ends. The tar goes to standard output.
fn command(mode: Mode, wanted: &Wanted, sources: &[String]) -> Result<Command> {
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")] {
        if !find(program) {
            return Err(Error::new(
                ErrorCode::Unavailable,
                format!("{program} is not installed, and it is needed to make Debian images"),
            )
            .hint(format!("apt-get install {package}"))
            .into());
        }
    }
    let mut command;
    match mode {
        Mode::Root => {
            command = Command::new("unshare");
            // Capabilities are kept over the exec until the map is written; then the tool becomes
            // root inside, which is nobody outside. Its temporary files go to the directory that
            // it is started in, since it may write nowhere else.
            command
                .args(["--keep-caps", "--user", "--mount", "--pid", "--fork", "--kill-child"])
                .args(["--ipc", "--uts", "--", "sh", "-c"])
                .arg(
                    "echo ready >&2; read -r go; \
                     exec setpriv --reuid 0 --regid 0 --clear-groups sh -c \
                     'mount -c --bind . /tmp && cd / && exec \"$@\" </dev/null' sh \"$@\"",
                )
                .args(["sh", "mmdebstrap", "--mode=root"]);
        }
        Mode::User => {
            command = Command::new("sh");
            command
                .args(["-c", "echo ready >&2; read -r go; exec \"$@\" </dev/null", "sh"])
                .args(["mmdebstrap", "--mode=unshare"]);
        }
    }
    command.args(["--variant=minbase", "--format=tar"]);
    if !wanted.packages.is_empty() {
        command.arg(format!("--include={}", wanted.packages.join(",")));
    }
    if wanted.agent {
        command.arg(format!("--customize-hook={AGENT}"));
    }
    command
        .arg(&wanted.suite)
        .arg("-")
        .args(sources)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", "/");
    Ok(command)
}

async fn run(mut child: Child, mode: Mode, progress: &Progress) -> Result<()> {
    let read = || ImageError::io("read from", "mmdebstrap");
    let stderr = child.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(stderr).split(b'\n');
    let first = lines.next_segment().await.map_err(read())?.unwrap_or_default();
    if first == b"ready" && mode == Mode::Root {
        let pid = child.id().unwrap_or_default();
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{pid}/{map}");
            tokio::fs::write(&path, format!("0 {IDS_BASE} {IDS}\n"))
                .await
                .map_err(ImageError::io("write", path))?;
        }
    }
    if let Some(mut stdin) = child.stdin.take() {
        // When it is gone already, its exit status tells why.
        let _ = stdin.write_all(b"go\n").await;
    }
    let mut tail: VecDeque<String> = VecDeque::new();
    tail.push_back(String::from_utf8_lossy(&first).into_owned());
    while let Some(line) = lines.next_segment().await.map_err(read())? {
        let text: String = String::from_utf8_lossy(&line).chars().take(400).collect();
        if let Some(said) = text.strip_prefix("I: ") {
            say(progress, said);
        }
        if tail.len() >= MAX_TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
    let status = child.wait().await.map_err(ImageError::io("wait for", "mmdebstrap"))?;
    if status.success() {
        return Ok(());
    }
    let why = tail.iter().rev().find_map(|line| line.strip_prefix("E: "));
    Err(Error::new(
        ErrorCode::Upstream,
        format!("mmdebstrap failed: {}", why.unwrap_or("it said nothing of use")),
    )
    .hint("check the release, the packages and the mirror ([images] debian_mirror)")
    .context(Vec::from(tail).join(" | "))
    .into())
}
