//! Sends batches of spans.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use pinfold_egress::{Client, EgressConfig, Exception, Limits, Target};
use pinfold_types::{Error, ErrorCode, Result, config::TelemetryConfig};
use prost::Message;
use rustix::fs::OFlags;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    BATCH, Counts, FLUSH, REQUEST, WAIT,
    context::fresh,
    proto::{
        ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span,
        Value,
    },
};

/// How often one batch is tried.
const TRIES: u32 = 3;
/// Before the second try; doubled before the third.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends what the layer takes.
#[derive(Debug)]
pub struct Exporter {
    client: Client,
    url: String,
    headers: HeaderMap,
    resource: Resource,
    scope: Scope,
    queue: mpsc::Receiver<Span>,
    counts: Counts,
}

impl Exporter {
    pub(super) fn new(
        endpoint: &str,
        config: &TelemetryConfig,
        version: &'static str,
        queue: mpsc::Receiver<Span>,
        counts: Counts,
    ) -> Result<Self> {
        // As OTEL_EXPORTER_OTLP_ENDPOINT: a base, to which the signal's own path is added.
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let wrong = |why: String| {
            Error::new(ErrorCode::InvalidArgument, format!("telemetry.endpoint: {why}"))
                .hint("write the collector's base URL, such as https://collector.example.com:4318")
        };
        let target = Target::parse(&url).map_err(|error| wrong(error.to_string()))?;
        if endpoint.contains(['?', '#']) {
            return Err(wrong("it has a query or a fragment".into()));
        }
        if !target.is_https() && !config.plain_http {
            let why = format!("{endpoint:?} is plain HTTP, and telemetry.plain_http is not set");
            return Err(wrong(why));
        }
        if endpoint.trim_end_matches('/').ends_with("/v1/traces") {
            return Err(wrong("/v1/traces is added to it, so it does not end so".into()));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if let Some(file) = &config.authorization_file {
            headers.insert(header::AUTHORIZATION, credential(file)?);
        }
        let exception = Exception {
            allow_private: config.allow_private,
            plain_http: config.plain_http,
            ca_file: config.ca_file.clone(),
        };
        let egress = EgressConfig { exceptions: [(target.authority(), exception)].into() };
        let client = Client::new(egress);
        client.check(&target).map_err(|error| wrong(error.to_string()))?;
        let instance = format!("{:016x}", u64::from_be_bytes(fresh()));
        let attributes = [
            ("service.name", "pinfold".to_owned()),
            ("service.version", version.to_owned()),
            ("service.instance.id", instance),
        ];
        let attributes =
            attributes.map(|(key, value)| KeyValue::new(key, Value::Text(value))).into();
        Ok(Self {
            client,
            url,
            headers,
            resource: Resource { attributes },
            scope: Scope { name: "pinfold".to_owned(), version: version.to_owned() },
            queue,
            counts,
        })
    }

    /// What becomes of spans.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Sends until `stop`, then what waits, for a bounded time.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut well = true;
        let mut batch = Vec::with_capacity(BATCH);
        let sending = async {
            loop {
                batch.clear();
                if self.queue.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                let more = async {
                    let mut room = BATCH - batch.len();
                    while room > 0 {
                        match self.queue.recv_many(&mut batch, room).await {
                            0 => return,
                            more => room -= more,
                        }
                    }
                };
                let _filled = timeout(WAIT, more).await;
                let sent = self.deliver(&batch).await;
                self.account(batch.len(), &sent);
                match (&sent, well) {
                    (Err(why), true) => tracing::warn!(why, "spans are lost"),
                    (Ok(()), false) => tracing::info!("the collector takes spans again"),
                    _ => {}
                }
                well = sent.is_ok();
                batch.clear();
            }
        };
        tokio::select! {
            () = sending => return,
            () = stop.cancelled() => {}
        }
        self.queue.close();
        // What was being sent when the server was told to end is sent once more: a collector
        // knows a span by its id.
        let flushed = timeout(FLUSH, async {
            loop {
                while batch.len() < BATCH
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    return;
                }
                let sent = self.send(&batch).await.map_err(|(why, _)| why);
                self.account(batch.len(), &sent);
                batch.clear();
            }
        });
        if flushed.await.is_err() {
            self.counts.count_dropped(batch.len() + self.queue.len());
            tracing::warn!("the last spans are lost: the collector was too slow");
        }
    }

    fn account(&self, spans: usize, sent: &Result<(), String>) {
        match sent {
            Ok(()) => self.counts.count_exported(spans),
            Err(_) => self.counts.count_dropped(spans),
        }
    }

    /// Tries until it is taken, refused for good, or tried enough.
    async fn deliver(&self, batch: &[Span]) -> Result<(), String> {
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            match self.send(batch).await {
                Ok(()) => return Ok(()),
                Err((why, again)) if left == 0 || !again => return Err(why),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        Ok(())
    }

    /// One request; an error says whether another may do better.
    async fn send(&self, batch: &[Span]) -> Result<(), (String, bool)> {
        let scope_spans = ScopeSpans { scope: Some(self.scope.clone()), spans: batch.to_vec() };
        let resource_spans =
            ResourceSpans { resource: Some(self.resource.clone()), scope_spans: vec![scope_spans] };
        let message = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        let body = Bytes::from(message.encode_to_vec());
        let limits =
            Limits { max_bytes: 0, redirects: 0, connect: REQUEST, idle: REQUEST, total: REQUEST };
        let answer = self.client.post(&self.url, self.headers.clone(), body, &limits).await;
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            // The specification's list of what may be tried again.
            Ok(answer) => {
                let code = answer.status.as_u16();
                Err((format!("the collector answers {code}"), [429, 502, 503, 504].contains(&code)))
            }
            Err(error) => Err((error.to_string(), true)),
        }
    }
}

/// The value of `Authorization`, from a file that only its owner may read.
fn credential(file: &Path) -> Result<HeaderValue> {
    use std::{
        io::Read,
        os::unix::fs::{MetadataExt, OpenOptionsExt},
    };
    const MOST: u64 = 8 << 10;
    // A pipe that nobody writes to would keep the server from starting.
    let options = i32::try_from(OFlags::NONBLOCK.bits()).map_err(Error::internal)?;
    let refused = |why: String, hint: &str| {
        let message = format!("telemetry.authorization_file {}: {why}", file.display());
        Error::new(ErrorCode::InvalidArgument, message).hint(hint.to_owned())
    };
    let hint = "put the header's whole value into it, such as: Bearer VALUE";
    let read = || {
        let open = std::fs::OpenOptions::new().read(true).custom_flags(options).open(file)?;
        let known = open.metadata()?;
        let mut text = String::new();
        if known.is_file() && known.len() <= MOST {
            open.take(MOST).read_to_string(&mut text)?;
        }
        Ok::<_, std::io::Error>((known.mode(), text))
    };
    let (mode, text) = read().map_err(|error| refused(error.to_string(), hint))?;
    if mode & 0o077 != 0 {
        let mend = format!("chmod 600 {}", file.display());
        return Err(refused("it is open to others".into(), &mend));
    }
    let mut value = HeaderValue::from_str(text.trim())
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| refused("it holds no value of a header".into(), hint))?;
    value.set_sensitive(true);
    Ok(value)
}
