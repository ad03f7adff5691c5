//! Requests, redirects and bounded answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, LOCATION, PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    config::EgressConfig,
    dial,
    error::EgressError,
    resolve::{Resolve, System},
    target::Target,
    tls,
};

/// Bounds of one request, its redirects included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the answer's body.
    pub max_bytes: u64,
    /// Most redirects.
    pub redirects: u32,
    /// To resolve, connect and set up TLS, each.
    pub connect: Duration,
    /// To the answer's head, and between two pieces of its body.
    pub idle: Duration,
    /// For everything.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 20,
            redirects: 5,
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(2),
        }
    }
}

/// The only way out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<EgressConfig>,
    resolver: Arc<dyn Resolve>,
}

impl Client {
    /// A client that reaches public addresses over TLS, and what `config` names.
    pub fn new(config: EgressConfig) -> Self {
        Self::with_resolver(config, Arc::new(System::default()))
    }

    pub(crate) fn with_resolver(config: EgressConfig, resolver: Arc<dyn Resolve>) -> Self {
        Self { config: Arc::new(config), resolver }
    }

    /// What the operator allowed.
    pub fn config(&self) -> &EgressConfig {
        &self.config
    }

    /// Checks what can be checked of a target before anything is asked of it: its scheme, an
    /// address written out, a name that is refused as such, and the root certificate for it.
    pub fn check(&self, target: &Target) -> Result<(), EgressError> {
        let exception = self.config.exceptions.get(&target.authority());
        dial::check_unresolved(target, exception)?;
        if target.is_https() {
            tls::config(exception.and_then(|exception| exception.ca_file.as_deref()))?;
        }
        Ok(())
    }

    /// Checks where a target leads, as a request would, for a program that dials by itself: plain
    /// HTTP is not refused, because such a program checks what it fetches. A name may lead
    /// elsewhere when it is resolved again, so this is no wall, only a refusal of what can be
    /// seen to be wrong.
    pub async fn check_address(&self, target: &Target) -> Result<(), EgressError> {
        let mut exception =
            self.config.exceptions.get(&target.authority()).cloned().unwrap_or_default();
        exception.plain_http = true;
        let limit = Limits::default().connect;
        dial::checked_addresses(target, Some(&exception), &*self.resolver, limit).await.map(drop)
    }

    /// GET, following redirects.
    pub async fn get(
        &self,
        url: &str,
        headers: HeaderMap,
        limits: &Limits,
    ) -> Result<Response, EgressError> {
        self.request(Method::GET, url, headers, limits).await
    }

    /// HEAD, following redirects.
    pub async fn head(
        &self,
        url: &str,
        headers: HeaderMap,
        limits: &Limits,
    ) -> Result<Response, EgressError> {
        self.request(Method::HEAD, url, headers, limits).await
    }

    /// POST, once: a redirect is an answer like any other.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        limits: &Limits,
    ) -> Result<Response, EgressError> {
        let deadline = Instant::now() + limits.total;
        let target = Target::parse(url)?;
        let work = self.once(&Method::POST, &target, headers, body, limits, deadline);
        timeout(left(deadline), work)
            .await
            .map_err(|_| dial::late(&target, "answer", limits.total))?
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        limits: &Limits,
    ) -> Result<Response, EgressError> {
        let deadline = Instant::now() + limits.total;
        let mut target = Target::parse(url)?;
        for _ in 0..=limits.redirects {
            let work = self.once(&method, &target, headers.clone(), Bytes::new(), limits, deadline);
            let response = timeout(left(deadline), work)
                .await
                .map_err(|_| dial::late(&target, "answer", limits.total))??;
            let Some(location) = redirect(&response) else { return Ok(response) };
            let refuse = |why| EgressError::Redirect { host: target.host().to_string(), why };
            let location = location.map_err(|()| refuse("to a place that is not text"))?;
            let next = target.join(&location)?;
            if target.is_https() && !next.is_https() {
                return Err(refuse("from https to http"));
            }
            if !next.same_origin(&target) {
                for secret in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    headers.remove(secret);
                }
            }
            target = next;
        }
        Err(EgressError::Redirect { host: target.host().to_string(), why: "too often" })
    }

    async fn once(
        &self,
        method: &Method,
        target: &Target,
        headers: HeaderMap,
        body: Bytes,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Response, EgressError> {
        let exception = self.config.exceptions.get(&target.authority());
        let addresses =
            dial::checked_addresses(target, exception, &*self.resolver, limits.connect).await?;
        let stream = dial::connect(target, exception, &addresses, limits.connect).await?;
        let protocol = |err: hyper::Error| EgressError::Protocol {
            host: target.host().to_string(),
            detail: err.to_string(),
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(256 << 10)
            .max_headers(200)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(protocol)?;
        // Ends with the connection: the guard aborts it when the response is dropped.
        let driver = Driver(tokio::spawn(async move {
            if let Err(err) = connection.await {
                tracing::debug!(%err, "an outgoing connection broke");
            }
        }));
        let request = build(method, target, headers, body)?;
        let answer = timeout(limits.idle, sender.send_request(request))
            .await
            .map_err(|_| dial::late(target, "answer", limits.idle))?
            .map_err(protocol)?;
        let (head, incoming) = answer.into_parts();
        let body = Body {
            incoming,
            host: target.host().to_string(),
            left: limits.max_bytes,
            limit: limits.max_bytes,
            idle: limits.idle,
            deadline,
            total: limits.total,
            _driver: driver,
        };
        Ok(Response { status: head.status, headers: head.headers, target: target.clone(), body })
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn build(
    method: &Method,
    target: &Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, EgressError> {
    let url = target.url();
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method.clone();
    let refuse = |why| EgressError::BadUrl { url: crate::target::safe_excerpt(url.as_str()), why };
    *request.uri_mut() = path.parse().map_err(|_| refuse("its path is not valid"))?;
    *request.headers_mut() = headers;
    let host = match url.port() {
        Some(port) => format!("{}:{port}", target.host()),
        None => target.host().to_string(),
    };
    let host = HeaderValue::from_str(&host).map_err(|_| refuse("its host is not valid"))?;
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (HOST, host),
        (CONNECTION, HeaderValue::from_static("close")),
        (USER_AGENT, HeaderValue::from_static(concat!("pinfold/", env!("CARGO_PKG_VERSION")))),
    ];
    for (name, value) in fixed {
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// The `Location` of a redirect; `Err` when it is not text.
fn redirect(response: &Response) -> Option<Result<String, ()>> {
    let follows = matches!(
        response.status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers.get(LOCATION).filter(|_| follows)?;
    Some(location.to_str().map(str::to_owned).map_err(|_| ()))
}

/// An answer whose body streams.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub target: Target,
    /// Body.
    pub body: Body,
}

/// A body, bounded in bytes and time.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    host: String,
    left: u64,
    limit: u64,
    idle: Duration,
    deadline: Instant,
    total: Duration,
    _driver: Driver,
}

#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body {
    /// The next piece, or none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        let late = |what, limit: Duration| EgressError::Timeout {
            host: self.host.clone(),
            what,
            limit_ms: limit.as_millis(),
        };
        loop {
            let wait = self.idle.min(left(self.deadline));
            if wait.is_zero() {
                return Err(late("finish", self.total));
            }
            let frame = timeout(wait, self.incoming.frame())
                .await
                .map_err(|_| late("send more", self.idle))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|err| EgressError::Protocol {
                host: self.host.clone(),
                detail: err.to_string(),
            })?;
            // Trailers carry nothing we use.
            let Ok(data) = frame.into_data() else { continue };
            self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| {
                EgressError::TooLarge { host: self.host.clone(), limit: self.limit }
            })?;
            return Ok(Some(data));
        }
    }

    /// Everything that is left.
    pub async fn bytes(&mut self) -> Result<Vec<u8>, EgressError> {
        let mut all = Vec::new();
        while let Some(piece) = self.chunk().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
