//! Pulls over TLS from a real registry (Debian's `docker-registry`), which `skopeo` pushed to.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pinfold_egress::{Client, EgressConfig};
use pinfold_image::ImageStore;
use pinfold_types::{
    Result,
    config::{ImagesConfig, RegistryConfig},
    image::ImageInfo,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    fake::{arch, digest, gzip, image},
    images::write_layout,
    support::{Tar, mode},
};

/// User and password, and the latter's bcrypt hash.
const USER: &str = "puller";
const PASSWORD: &str = "correct horse";

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().expect("it starts: see scripts/setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

/// A registry with TLS and basic authentication on the loopback.
struct Registry {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An authority of its own, and a certificate of it for the loopback.
fn certificates(dir: &Path) {
    let config = "[req]\ndistinguished_name=dn\n[dn]\n\
        [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
        [leaf]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
    fs::write(dir.join("openssl.cnf"), config).expect("written");
    let make = |name: &str, section: &str, signer: &[&str]| {
        let (key, cert) = (format!("{name}.key"), format!("{name}.crt"));
        run(Command::new("openssl")
            .current_dir(dir)
            .args(["req", "-x509", "-config", "openssl.cnf", "-extensions", section, "-nodes"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"])
            .args(["-subj", &format!("/CN=pinfold test {name}"), "-keyout", &key, "-out", &cert])
            .args(signer));
    };
    make("ca", "ca", &[]);
    make("other", "ca", &[]);
    make("server", "leaf", &["-CA", "ca.crt", "-CAkey", "ca.key"]);
}

impl Registry {
    fn start(dir: &Path) -> Self {
        certificates(dir);
        // glibc's crypt knows bcrypt on Debian, and perl is always there.
        let hash = run(Command::new("perl").args([
            "-e",
            "print crypt($ARGV[0], '$2y$05$pinfoldpinfoldpinfoldu')",
            PASSWORD,
        ]));
        let hash = String::from_utf8(hash).expect("text");
        assert!(hash.starts_with("$2y$05$"), "{hash}");
        fs::write(dir.join("htpasswd"), format!("{USER}:{hash}\n")).expect("written");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let at = dir.display();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: x, \
             tls: {{certificate: {at}/server.crt, key: {at}/server.key}}}}\n\
             auth: {{htpasswd: {{realm: pinfold, path: {at}/htpasswd}}}}\n"
        );
        fs::write(dir.join("config.yml"), config).expect("written");
        let mut child = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts: see scripts/setup");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let this = Self { child, port, dir: dir.to_owned() };
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).expect("its log");
            all.push_str(&line);
            assert!(read > 0, "the registry ended: {all}");
            if line.contains("listening on") {
                break;
            }
        }
        // It must not block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        this
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes an image of these layers as `team/app:1`; the digest of its manifest.
    fn push(&self, tars: &[Vec<u8>]) -> String {
        let layout = self.dir.join("layout");
        fs::create_dir_all(&layout).expect("made");
        let image = image(tars, arch());
        write_layout(&layout, &image);
        let trust = self.dir.join("trust");
        fs::create_dir_all(&trust).expect("made");
        fs::copy(self.dir.join("ca.crt"), trust.join("ca.crt")).expect("copied");
        run(Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--preserve-digests", "--dest-cert-dir"])
            .arg(&trust)
            .args(["--dest-creds", &format!("{USER}:{PASSWORD}")])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/team/app:1", self.host())));
        digest(&image.manifest)
    }

    /// How the operator names it.
    fn named(&self) -> RegistryConfig {
        RegistryConfig {
            allow_private: true,
            ca_file: Some(self.dir.join("ca.crt")),
            username: Some(USER.into()),
            password: Some(format!("file:{}", self.dir.join("password").display())),
            ..RegistryConfig::default()
        }
    }
}

fn store(dir: &Path, registries: BTreeMap<String, RegistryConfig>) -> ImageStore {
    let config = ImagesConfig { registries, ..ImagesConfig::default() };
    let egress = Client::new(EgressConfig::from_images(&config));
    ImageStore::open(&dir.join("images"), mode(), &config, egress).expect("opens")
}

async fn pull(store: &ImageStore, reference: &str) -> Result<ImageInfo> {
    let (progress, _events) = mpsc::channel(16);
    store.pull(reference, None, progress).await
}

/// A layer whose packed bytes are about as many as asked for.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b' ' + u8::try_from(state % 95).expect("small"))
    })
    .take(bytes)
    .collect()
}

fn write_password(dir: &Path, text: &str) {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join("password"))
        .expect("opened");
    file.write_all(text.as_bytes()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_is_trusted_as_far_as_the_operator_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Registry::start(dir.path());
    let tars = [
        Tar::default().dir("bin").file("bin/run", "run").file("etc/a", "1").end(),
        Tar::default().file("etc/b", "2").hard("copy", "bin/run").end(),
    ];
    let manifest = registry.push(&tars);
    write_password(dir.path(), PASSWORD);
    let (host, named) = (registry.host(), registry.named());
    let tag = format!("{host}/team/app:1");
    let try_with = |config: Option<RegistryConfig>, reference: String| {
        let registries = config.into_iter().map(|config| (host.clone(), config)).collect();
        async move {
            let home = tempfile::tempdir().expect("a directory");
            let store = store(home.path(), registries);
            let result = pull(&store, &reference).await;
            assert_eq!(store.list().len(), usize::from(result.is_ok()));
            result
        }
    };
    let lower = digest(&tars[0]);
    for reference in
        [tag.clone(), format!("{host}/team/app@{manifest}"), format!("{tag}@{manifest}")]
    {
        let info = try_with(Some(named.clone()), reference.clone()).await.expect(&reference);
        assert_eq!(info.layers[0], lower, "{reference}");
        assert!(info.names[0].as_str().starts_with(&format!("{host}/team/app")), "{info:?}");
    }

    let wrong = format!("sha256:{}", "0".repeat(64));
    let other_ca = RegistryConfig { ca_file: Some(dir.path().join("other.crt")), ..named.clone() };
    let no_ca = RegistryConfig { ca_file: None, ..named.clone() };
    let plain = RegistryConfig { allow_private: false, ..named.clone() };
    let nobody = RegistryConfig { username: None, password: None, ..named.clone() };
    for (config, reference, code, says) in [
        (None, tag.clone(), "egress_denied", "special"),
        (Some(plain), tag.clone(), "egress_denied", "special"),
        (Some(no_ca), tag.clone(), "upstream", "cannot trust"),
        (Some(other_ca), tag.clone(), "upstream", "cannot trust"),
        (Some(nobody), tag.clone(), "upstream", "user name and password"),
        (Some(named.clone()), format!("{tag}@{wrong}"), "not_found", "0000"),
        (Some(named.clone()), format!("{host}/team/app:2"), "not_found", "\"2\""),
    ] {
        let refused = try_with(config, reference).await.expect_err(says);
        assert_eq!(refused.code.as_str(), code, "{refused}");
        assert!(refused.message.contains(says), "{says}: {refused}");
    }
    write_password(dir.path(), "wrong");
    let refused = try_with(Some(named.clone()), tag.clone()).await.expect_err("a wrong password");
    assert_eq!(refused.code.as_str(), "upstream");
    write_password(dir.path(), PASSWORD);

    // What lies in the registry is not what its name says.
    let blob = digest(&gzip(&tars[0]));
    let hex = &blob["sha256:".len()..];
    let data =
        dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let mut bytes = fs::read(&data).expect("the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&data, bytes).expect("spoiled");
    let refused = try_with(Some(named), tag).await.expect_err("spoiled");
    assert_eq!(refused.code.as_str(), "bad_image", "{refused}");
}

/// Carries connections to the registry; the first that has carried `cut` bytes back is cut.
async fn proxy(to: u16, cut: u64) -> (u16, Arc<AtomicU64>, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let carried = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&carried);
    let task = tokio::spawn(async move {
        let once = Arc::new(AtomicU64::new(cut));
        loop {
            let (client, _) = listener.accept().await.expect("accepts");
            let (count, once) = (Arc::clone(&count), Arc::clone(&once));
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", to)).await.expect("the registry");
                let ((mut from, mut into), (mut back, mut out)) =
                    (client.into_split(), server.into_split());
                let forth = tokio::spawn(async move { tokio::io::copy(&mut from, &mut out).await });
                let mut piece = vec![0; 16 << 10];
                let mut mine = 0;
                while let Ok(read @ 1..) = back.read(&mut piece).await {
                    let bytes = u64::try_from(read).expect("small");
                    count.fetch_add(bytes, Ordering::Relaxed);
                    mine += bytes;
                    if into.write_all(&piece[..read]).await.is_err()
                        || (mine >= once.load(Ordering::Relaxed)
                            && once.swap(u64::MAX, Ordering::Relaxed) != u64::MAX)
                    {
                        break;
                    }
                }
                forth.abort();
            });
        }
    });
    (port, carried, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_cut_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Registry::start(dir.path());
    let tar = Tar::default().dir("bin").file("bin/noise", &noise(4 << 20)).end();
    let whole = u64::try_from(gzip(&tar).len()).expect("it fits");
    registry.push(std::slice::from_ref(&tar));
    write_password(dir.path(), PASSWORD);
    let (port, carried, task) = proxy(registry.port, whole / 2).await;
    let host = format!("127.0.0.1:{port}");
    let store = store(dir.path(), BTreeMap::from([(host.clone(), registry.named())]));
    let info = pull(&store, &format!("{host}/team/app:1")).await.expect("in two parts");
    assert_eq!(info.layers, [digest(&tar)]);
    let carried = carried.load(Ordering::Relaxed);
    assert!(carried > whole, "{carried} of {whole}");
    assert!(carried < whole + whole / 4, "it began anew: {carried} for {whole} bytes");
    task.abort();
}
