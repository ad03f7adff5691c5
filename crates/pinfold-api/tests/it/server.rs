//! A served API, and the least client that can say anything.

use std::{net::SocketAddr, path::Path, time::Instant};

use pinfold_api::{Activity, Problem, Server, Site, Streams, Tcp, router};
use pinfold_auth::TokenKey;
use pinfold_control::{Access, ServerFacts, Service};
use pinfold_store::{
    Store,
    audit::{AuditKey, AuditLog, AuditOptions},
};
use pinfold_types::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::node::FakeNode;

/// A server in a directory of its own.
pub(crate) struct Served {
    directory: tempfile::TempDir,
    pub(crate) tcp: SocketAddr,
    pub(crate) activity: Activity,
    stop: CancellationToken,
    running: Option<JoinHandle<Streams>>,
}

impl Served {
    pub(crate) async fn start(max_connections: usize) -> Self {
        Self::with(max_connections, "").await
    }

    /// With a TCP address, plain, and this configuration.
    pub(crate) async fn with(max_connections: usize, config: &str) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tcp = socket.local_addr().expect("it is bound");
        let config = Config::parse(config).expect("a valid configuration");
        let site = Site::new(&config, &[tcp]);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let directory =
            tempfile::Builder::new().permissions(private).tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("sock")).expect("a socket");
        let store = Store::open(directory.path().join("state.db")).await.expect("a store");
        let facts = ServerFacts {
            version: "0".into(),
            home: directory.path().to_owned(),
            started: Instant::now(),
        };
        let access = Access::open(
            rustix::process::geteuid().as_raw(),
            TokenKey::new([1; 32]),
            store.clone(),
            &config,
        )
        .await
        .expect("access");
        let key = AuditKey::open(&directory.path().join("keys")).expect("a key");
        let audit = AuditLog::open(&directory.path().join("audit"), key, AuditOptions::default());
        let audit = audit.expect("an audit log");
        let (activity, stop) = (Activity::default(), CancellationToken::new());
        let service = Service::new(FakeNode, access.clone(), store, audit, facts);
        service.found_at(vec![format!("http://pinfold.localhost:{}", tcp.port())]);
        let server = Server {
            listener,
            inside: pinfold_api::Inside::new().1,
            tcp: vec![Tcp::new(socket, None).expect("a socket")],
            site: site.watched_by(service.clone()),
            router: router(service),
            access,
            metrics: pinfold_api::Metrics::default(),
            max_connections,
            activity: activity.clone(),
            stop: stop.clone(),
        };
        let running = Some(tokio::spawn(server.run()));
        Self { directory, tcp, activity, stop, running }
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        connect(&self.directory.path().join("sock")).await
    }

    /// Sends this over TCP as it is, and reads the answer to its end.
    pub(crate) async fn over_tcp(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.tcp).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the request");
        let mut bytes = Vec::new();
        let _reset = stream.read_to_end(&mut bytes).await;
        Answer::parse(&bytes)
    }

    /// Stops taking calls; the streams go on until they are ended.
    pub(crate) async fn stop(&mut self) -> Streams {
        self.stop.cancel();
        self.running.take().expect("it runs").await.expect("it does not panic")
    }

    /// Sends `head` (without its end) and `body`, and reads the answer to its end.
    pub(crate) async fn raw(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let head = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the head");
        // A server may answer and close before it has taken everything.
        let _cut = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _reset = stream.read_to_end(&mut bytes).await;
        Answer::parse(&bytes)
    }

    pub(crate) async fn call(&self, method: &str, path: &str) -> Answer {
        self.raw(&format!("{method} {path} HTTP/1.1"), b"").await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}",
            body.len()
        );
        self.raw(&head, body.as_bytes()).await
    }
}

async fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.expect("the server listens")
}

/// An answer, its body as it came (with chunk sizes in it, where there are any).
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    /// As it came.
    pub(crate) raw_head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a whole head");
        let raw_head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let head = raw_head.to_ascii_lowercase();
        let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        Self { status: status.expect("a status"), head, raw_head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem document, which has to be whole and consistent.
    #[track_caller]
    pub(crate) fn problem(&self) -> Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem: Problem = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()));
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.code.http_status(), self.status);
        assert_eq!(problem.kind, format!("urn:pinfold:error:{}", problem.code));
        let id = problem.request_id.clone().expect("a request id");
        assert!(self.head.contains(&format!("x-request-id: {id}")), "{}", self.head);
        problem
    }
}
