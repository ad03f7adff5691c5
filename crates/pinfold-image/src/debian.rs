//! New Debians, by mmdebstrap, or by debootstrap where only that is installed.
//!
//! The tool and the packages' scripts run in a user namespace of their own, where root is an
//! unprivileged id outside, and in mount, pid, ipc and uts namespaces. They share this machine's
//! network, because apt fetches the packages; apt checks their signatures.

mod report;
mod sources;
mod tool;

use std::{os::unix::fs::chown, path::Path, process::Stdio, time::Duration};

use pinfold_types::{
    Error, ErrorCode, ImageName, Mode,
    image::{ImageDefaults, ImageInfo, ImageSource},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    time::timeout,
};

use self::{report::Report, sources::Sources, tool::Tool};
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
/// An archive's keys, for the tool.
const KEYRING: &str = "keyring.gpg";
/// Most bytes of them.
const MAX_KEYRING_BYTES: u64 = 4 << 20;

/// The release of the default image on a machine that is no Debian.
const RELEASE: &str = "bookworm";

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
    /// The default image: this machine's own release, so that its mirrors serve it.
    pub(crate) fn default_image(root: &Path, mirror: Option<String>) -> Self {
        Self {
            suite: host::apt::debian_release(root).unwrap_or_else(|| RELEASE.into()),
            packages: DEFAULT_PACKAGES.map(str::to_owned).to_vec(),
            mirror,
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
    check(&wanted)?;
    make(store, Tool::installed(store.mode())?, wanted, name, progress).await
}

fn check(wanted: &Wanted) -> Result<()> {
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
    Ok(())
}

async fn make(
    store: &ImageStore,
    tool: Tool,
    wanted: Wanted,
    name: Option<ImageName>,
    progress: &Progress,
) -> Result<ImageInfo> {
    let suite = wanted.suite.as_str();
    let mut sources = Sources::choose(
        store.config(),
        store.egress(),
        store.host_root(),
        suite,
        wanted.mirror.as_deref(),
    )
    .await?;
    let work = store.layers().draft()?;
    let (tar, room) = (work.tree().join("root.tar"), work.tree().join("tmp"));
    let out = std::fs::File::create(&tar).map_err(ImageError::io("write", &tar))?;
    files::make_dir(&room, 0o700)?;
    if let Some(keyring) = sources.keyring.as_mut().filter(|_| store.mode() == Mode::Root) {
        // The tool may not reach it where it lies: here it does, as /tmp.
        let keys = files::read_bounded(keyring, MAX_KEYRING_BYTES)?;
        files::write_file(&room.join(KEYRING), &keys, 0o644)?;
        *keyring = Path::new("/tmp").join(KEYRING);
    }
    let mut command = tool.command(store.mode(), &wanted, &sources);
    command.envs(tool::proxies().await);
    if store.mode() == Mode::Root {
        chown(&room, Some(IDS_BASE), Some(IDS_BASE))
            .map_err(ImageError::io("change the owner of", &room))?;
        command.current_dir(&room);
    }
    say(progress, format!("making Debian {suite} by {} from {}", tool.name(), sources.first()));
    let child = command
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ImageError::io("start", "unshare"))?;
    timeout(TIME, run(child, tool, store.mode(), progress)).await.map_err(|_| {
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

async fn run(mut child: Child, tool: Tool, mode: Mode, progress: &Progress) -> Result<()> {
    let read = || ImageError::io("read from", tool.name());
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
    let mut report = Report::default();
    while let Some(line) = lines.next_segment().await.map_err(read())? {
        report.line(&line, progress);
    }
    let status = child.wait().await.map_err(ImageError::io("wait for", tool.name()))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Upstream, format!("{} failed: {}", tool.name(), report.why()))
        .hint("check the release, the packages and the mirror ([images] debian_mirror)")
        .context(report.tail())
        .into())
}
