//! A registry on the loopback that speaks the distribution protocol, and can misbehave.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Write as _,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinHandle};

/// What it does besides the right thing.
#[expect(clippy::struct_excessive_bools, reason = "each trick is on or off by itself")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tricks {
    /// Asks for a bearer token.
    pub token: bool,
    /// Sends blobs from another port.
    pub redirect: bool,
    /// Answers the first request with 429.
    pub busy_once: bool,
    /// Stops in the middle of every blob's first answer.
    pub truncate_once: bool,
    /// Serves other bytes than the digest says.
    pub wrong_blob: bool,
    /// Ignores ranges.
    pub no_ranges: bool,
    /// Redirects blobs to a host that nobody allowed.
    pub redirect_away: bool,
}

#[derive(Debug, Default)]
struct State {
    tricks: Tricks,
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Vec<u8>>,
    blob_port: u16,
    port: u16,
    busy: AtomicU32,
    started: Mutex<HashMap<String, u32>>,
    log: Mutex<Vec<String>>,
}

/// A running registry.
pub(crate) struct Registry {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("packed");
    out.finish().expect("packed")
}

/// An image of plain tar layers: configuration, manifest, and the packed blobs.
pub(crate) struct Image {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
}

pub(crate) fn image(tars: &[Vec<u8>], architecture: &str) -> Image {
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "A=1"], "Entrypoint": ["/bin/run"], "Cmd": ["arg"],
            "WorkingDir": "/srv", "User": "app",
        },
        "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|t| digest(t)).collect::<Vec<_>>()},
    }))
    .expect("JSON");
    let blobs: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest(blob), "size": blob.len(),
            })
        })
        .collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config), "size": config.len(),
        },
        "layers": layers,
    }))
    .expect("JSON");
    Image { config, manifest, blobs }
}

impl Registry {
    /// Serves `team/app:1`, an index with this machine's image and a foreign one.
    pub(crate) async fn start(tars: &[Vec<u8>], tricks: Tricks) -> Self {
        let ours = image(tars, arch());
        let foreign = image(&[], "pdp11");
        let entry = |image: &Image, architecture: &str| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&image.manifest), "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let index = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry(&foreign, "pdp11"), entry(&ours, arch())],
        }))
        .expect("JSON");
        let main = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let blobs = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut state = State {
            tricks,
            port: main.local_addr().expect("bound").port(),
            blob_port: blobs.local_addr().expect("bound").port(),
            ..State::default()
        };
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        for text in [&ours.manifest, &foreign.manifest] {
            state.manifests.insert(digest(text), (kind.clone(), text.clone()));
        }
        let index_kind = "application/vnd.oci.image.index.v1+json".to_owned();
        state.manifests.insert("1".into(), (index_kind, index));
        for blob in ours.blobs.iter().chain([&ours.config]) {
            state.blobs.insert(digest(blob), blob.clone());
        }
        let state = Arc::new(state);
        let tasks = vec![
            tokio::spawn(serve(main, Arc::clone(&state), false)),
            tokio::spawn(serve(blobs, Arc::clone(&state), true)),
        ];
        Self { state, tasks }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.state.port)
    }

    pub(crate) fn blob_host(&self) -> String {
        format!("127.0.0.1:{}", self.state.blob_port)
    }

    /// Requests so far: method, path, and whether they carried a credential or a range.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state.log.lock().expect("lock").clone()
    }
}

pub(crate) const fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

async fn serve(listener: TcpListener, state: Arc<State>, blob_host: bool) {
    loop {
        let (peer, _) = listener.accept().await.expect("accepts");
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(state.answer(&request, blob_host)) }
            });
            // A client that hangs up is no fault of the registry's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(peer), answer).await;
        });
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}

impl State {
    fn answer(&self, request: &Request<Incoming>, blob_host: bool) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let sent = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
        let credential = sent(header::AUTHORIZATION);
        let range = sent(header::RANGE);
        self.log.lock().expect("lock").push(format!(
            "{}{path} credential={} range={}",
            if blob_host { "blob-host " } else { "" },
            credential.unwrap_or("-"),
            range.unwrap_or("-"),
        ));
        if path == "/token" {
            let scope = request.uri().query().unwrap_or_default();
            assert!(scope.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{scope}");
            return Response::new(Full::from(r#"{"token":"t0ken","expires_in":60}"#));
        }
        if self.tricks.busy_once && self.busy.fetch_add(1, Ordering::SeqCst) == 0 {
            let mut response = status(StatusCode::TOO_MANY_REQUESTS);
            response.headers_mut().insert(header::RETRY_AFTER, "0".parse().expect("a value"));
            return response;
        }
        if self.tricks.token && !blob_host && credential != Some("Bearer t0ken") {
            let mut response = status(StatusCode::UNAUTHORIZED);
            let challenge =
                format!("Bearer realm=\"http://127.0.0.1:{}/token\",service=\"fake\"", self.port);
            let challenge = challenge.parse().expect("a value");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        if let Some(reference) = path.strip_prefix("/v2/team/app/manifests/") {
            let Some((kind, text)) = self.manifests.get(reference) else {
                return status(StatusCode::NOT_FOUND);
            };
            let mut response = Response::new(Full::from(text.clone()));
            response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a value"));
            return response;
        }
        match path.strip_prefix("/v2/team/app/blobs/") {
            Some(digest) => self.blob(digest, range, path, blob_host),
            None => status(StatusCode::NOT_FOUND),
        }
    }

    fn blob(
        &self,
        digest: &str,
        range: Option<&str>,
        path: &str,
        blob_host: bool,
    ) -> Response<Full<Bytes>> {
        let Some(blob) = self.blobs.get(digest) else { return status(StatusCode::NOT_FOUND) };
        let is_layer = !blob.starts_with(b"{");
        if self.tricks.redirect_away && is_layer {
            let mut response = status(StatusCode::TEMPORARY_REDIRECT);
            let away = "http://169.254.169.254/latest/meta-data/".parse().expect("a value");
            response.headers_mut().insert(header::LOCATION, away);
            return response;
        }
        if self.tricks.redirect && !blob_host {
            let mut response = status(StatusCode::TEMPORARY_REDIRECT);
            let to = format!("http://127.0.0.1:{}{path}", self.blob_port);
            response.headers_mut().insert(header::LOCATION, to.parse().expect("a value"));
            return response;
        }
        let mut bytes = blob.clone();
        if self.tricks.wrong_blob && is_layer {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        let first = {
            let mut started = self.started.lock().expect("lock");
            let count = started.entry(digest.to_owned()).or_default();
            *count += 1;
            *count == 1
        };
        let from: usize = range
            .filter(|_| !self.tricks.no_ranges)
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        let end = if self.tricks.truncate_once && first && is_layer {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        let total = bytes.len();
        let mut response = Response::new(Full::from(bytes[from.min(end)..end].to_vec()));
        if from > 0 {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {from}-{}/{total}", total - 1).parse().expect("a value");
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}
