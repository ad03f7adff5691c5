//! A Debian made by the real mmdebstrap from a small archive on the loopback, which the test
//! makes and signs: no network is needed.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use pinfold_egress::{Client, EgressConfig};
use pinfold_image::{ImageStore, ImportSource};
use pinfold_types::{
    Mode,
    config::ImagesConfig,
    image::{ImageProgress, ImageSource},
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::mpsc};

use crate::support::mode;

/// Programs of this machine that the archive's one real package brings: what mmdebstrap, dpkg and
/// the image's own hook run inside.
const PROGRAMS: [&str; 34] = [
    "/bin/sh",
    "/usr/bin/dpkg",
    "/usr/bin/dpkg-deb",
    "/usr/bin/dpkg-split",
    "/usr/bin/dpkg-query",
    "/usr/bin/dpkg-trigger",
    "/usr/bin/dpkg-divert",
    "/usr/bin/dpkg-statoverride",
    "/bin/tar",
    "/bin/rm",
    "/bin/mv",
    "/bin/cp",
    "/bin/ln",
    "/bin/ls",
    "/bin/cat",
    "/bin/chmod",
    "/bin/chown",
    "/bin/mkdir",
    "/bin/touch",
    "/bin/true",
    "/bin/false",
    "/bin/sed",
    "/bin/grep",
    "/usr/bin/diff",
    "/usr/bin/env",
    "/usr/bin/find",
    "/usr/bin/install",
    "/usr/bin/id",
    "/usr/bin/test",
    "/sbin/ldconfig",
    "/sbin/start-stop-daemon",
    "/usr/sbin/useradd",
    "/bin/bash",
    "/usr/bin/readlink",
];

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts: see scripts/setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn put(root: &Path, path: &str, text: &str, mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below")).expect("made");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
}

/// The root of the one real package.
fn base(root: &Path) {
    for dir in
        ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "tmp", "var/tmp", "root", "home"]
    {
        fs::create_dir_all(root.join(dir)).expect("made");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("linked");
    }
    // What ldd names is what the loader will look for.
    let mut files: BTreeSet<String> = PROGRAMS.iter().map(|path| (*path).to_owned()).collect();
    for program in PROGRAMS {
        let listed = Command::new("ldd").arg(program).output().expect("ldd").stdout;
        for word in String::from_utf8_lossy(&listed).split_whitespace() {
            if word.starts_with('/') {
                files.insert(word.trim_end_matches(':').to_owned());
            }
        }
    }
    for file in &files {
        let merged = file.strip_prefix("/usr").unwrap_or(file);
        let target = root.join("usr").join(merged.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("below")).expect("made");
        fs::copy(file, &target).unwrap_or_else(|err| panic!("{file}: {err}"));
    }
    put(
        root,
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/:/bin/false\n",
        0o644,
    );
    put(root, "etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
    put(root, "etc/shadow", "root:*:19000:0:99999:7:::\n_apt:!:19000::::::\n", 0o640);
    put(root, "etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n", 0o644);
    put(root, "etc/debian_version", "12.0\n", 0o644);
}

/// A package in the archive; its stanza of `Packages`.
fn package(archive: &Path, name: &str, control: &str, fill: impl FnOnce(&Path)) -> String {
    let root = archive.join("work").join(name);
    fs::create_dir_all(&root).expect("made");
    fill(&root);
    let architecture = run(Command::new("dpkg").arg("--print-architecture"));
    let control = format!(
        "Package: {name}\nVersion: 1.0\nArchitecture: {}\nMaintainer: test <t@example.org>\n\
         {control}Description: a package of a test\n",
        architecture.trim()
    );
    put(&root, "DEBIAN/control", &control, 0o644);
    let place = format!("pool/{name}_1.0.deb");
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&root)
        .arg(archive.join(&place)));
    let bytes = fs::read(archive.join(&place)).expect("built");
    format!("{control}Filename: {place}\nSize: {}\nSHA256: {}\n\n", bytes.len(), hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Signs with a key of its own; the public half is in `key.gpg`.
fn sign(archive: &Path, release: &Path) {
    let home = archive.join("work/gnupg");
    fs::create_dir_all(&home).expect("made");
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("set");
    let gpg = || {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(&home).args([
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
        ]);
        command
    };
    run(gpg().args(["--passphrase", "", "--quick-generate-key", "t@example.org", "rsa2048"]));
    run(gpg().args(["--export", "--output"]).arg(archive.join("key.gpg")).arg("t@example.org"));
    run(gpg()
        .args(["--passphrase", "", "--clearsign", "--output"])
        .arg(release.with_file_name("InRelease"))
        .arg(release));
    let mut agent = Command::new("gpgconf");
    run(agent.arg("--homedir").arg(&home).args(["--kill", "all"]));
    fs::set_permissions(
        archive.join("key.gpg"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .expect("set");
}

/// An archive with a release `tiny`: an essential base, apt, and a package to ask for.
fn make_archive(archive: &Path) {
    fs::create_dir_all(archive.join("pool")).expect("made");
    let essential = "Essential: yes\nPriority: required\n";
    let mut packages = package(archive, "base-tiny", &format!("Provides: dpkg\n{essential}"), base);
    packages += &package(archive, "apt", "Priority: important\n", |root| {
        put(root, "usr/share/doc/apt/readme", "apt", 0o644);
    });
    packages += &package(archive, "hello", "Priority: optional\n", |root| {
        put(root, "usr/bin/hello", "#!/bin/sh\necho hello\n", 0o755);
    });
    let architecture = run(Command::new("dpkg").arg("--print-architecture"));
    let architecture = architecture.trim();
    let list = format!("main/binary-{architecture}/Packages");
    put(archive, &format!("dists/tiny/{list}"), &packages, 0o644);
    let date = run(Command::new("date").args(["--utc", "-R"]));
    let release = format!(
        "Origin: test\nSuite: tiny\nCodename: tiny\nDate: {}\nArchitectures: {architecture}\n\
         Components: main\nSHA256:\n {} {} {list}\n",
        date.trim().replace("+0000", "UTC"),
        hex(packages.as_bytes()),
        packages.len()
    );
    put(archive, "dists/tiny/Release", &release, 0o644);
    sign(archive, &archive.join("dists/tiny/Release"));
}

/// Serves a directory on the loopback; its port.
async fn serve(root: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let root = Arc::new(root);
    tokio::spawn(async move {
        loop {
            let (peer, _) = listener.accept().await.expect("accepts");
            let root = Arc::clone(&root);
            tokio::spawn(async move {
                let answer = service_fn(move |request: Request<Incoming>| {
                    let file = root.join(request.uri().path().trim_start_matches('/'));
                    async move {
                        let read = tokio::fs::read(file).await;
                        let mut response = Response::new(Full::new(Bytes::new()));
                        match read {
                            Ok(bytes) => *response.body_mut() = Full::new(bytes.into()),
                            Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
                        }
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                // A client that hangs up is no fault of the archive's.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(peer), answer).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_is_made_of_the_configured_archive_and_only_with_its_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = dir.path().join("archive");
    make_archive(&archive);
    let port = serve(archive.clone()).await;
    let open = |name: &str, keyring: Option<PathBuf>| {
        let config = ImagesConfig {
            debian_mirror: Some(format!("http://127.0.0.1:{port}")),
            debian_keyring: keyring,
            ..ImagesConfig::default()
        };
        let egress = Client::new(EgressConfig::default());
        ImageStore::open(&dir.path().join(name), mode(), &config, egress).expect("opens")
    };
    let import = |store: ImageStore, suite: &str, package: &str| {
        let source = ImportSource::Debian {
            suite: suite.into(),
            packages: vec![package.into()],
            mirror: None,
        };
        async move {
            let (progress, mut events) = mpsc::channel(256);
            let name = Some("tiny".parse().expect("a name"));
            let result = store.import(source, name, progress).await;
            let mut seen = Vec::new();
            while let Ok(event) = events.try_recv() {
                seen.push(event);
            }
            (result, seen)
        }
    };
    let store = open("images", Some(archive.join("key.gpg")));
    let (made, seen) = import(store.clone(), "tiny", "hello").await;
    let info = made.unwrap_or_else(|err| panic!("{err} ({:?}): {seen:#?}", err.internal));
    assert_eq!(info.source, ImageSource::Debian { suite: "tiny".into() });
    let tree = store.root_mounts(&info.id).expect("mounts")[0].lowers[0].clone();
    let hello = fs::metadata(tree.join("usr/bin/hello")).expect("the package that was asked for");
    if mode() == Mode::Root {
        assert_eq!((hello.uid(), hello.gid()), (0, 0), "ids as inside");
    }
    assert!(tree.join("etc/apt/trusted.gpg.d/mirror.gpg").is_file(), "it trusts its archive");
    assert!(fs::read_link(tree.join("bin")).is_ok_and(|to| to == Path::new("usr/bin")));
    assert!(
        seen.iter().any(|event| matches!(
            event,
            ImageProgress::Count { what, done: 2, total: 2 } if what == "fetching packages"
        )),
        "{seen:#?}"
    );

    for (name, keyring, suite, package, says) in [
        ("no-key", None, "tiny", "hello", "not signed"),
        ("no-package", Some(archive.join("key.gpg")), "tiny", "nonesuch", "nonesuch"),
        ("no-release", Some(archive.join("key.gpg")), "none", "hello", "none"),
    ] {
        let store = open(name, keyring);
        let (made, _) = import(store.clone(), suite, package).await;
        let refused = made.expect_err(name);
        assert_eq!(refused.code.as_str(), "upstream", "{refused}");
        assert!(refused.message.contains(says), "{name}: {refused} {:?}", refused.internal);
        assert!(store.list().is_empty());
        assert_eq!(fs::read_dir(dir.path().join(name).join("partial")).expect("there").count(), 0);
    }
}
