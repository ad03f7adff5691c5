//! A client of the OCI distribution protocol (distribution-spec 1.1), pulls only, over the
//! guarded client.

use std::{path::Path, time::Duration};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use pinfold_egress::{Client, EgressError, Limits, Response};
use pinfold_types::{Error, ErrorCode, config::RegistryConfig, image::ImageProgress};
use tokio::{io::AsyncWriteExt, sync::Mutex};

use crate::{
    error::{ImageError, Result},
    import::Progress,
    oci::{self, Descriptor, Digest, Document, MAX_DOCUMENT_BYTES},
};

mod auth;
mod reference;

pub(crate) use reference::Reference;

/// How often a request is tried.
const TRIES: u32 = 5;
/// Longest wait that a registry may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Longest for one blob.
const BLOB_TIME: Duration = Duration::from_hours(6);
/// Progress is told this often.
const TELL_BYTES: u64 = 1 << 20;

/// One repository of one registry, with the token for it.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Client,
    base: String,
    config: RegistryConfig,
    scope: String,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Repository {
    pub(crate) fn new(client: Client, reference: &Reference, config: RegistryConfig) -> Self {
        let scheme = if config.plain_http { "http" } else { "https" };
        Self {
            client,
            base: format!("{scheme}://{}/v2/{}", reference.host(), reference.repository),
            config,
            scope: format!("repository:{}:pull", reference.repository),
            authorization: Mutex::new(None),
        }
    }

    /// A manifest or index, with its digest.
    pub(crate) async fn document(&self, reference: &str) -> Result<(Document, Digest)> {
        let url = format!("{}/manifests/{reference}", self.base);
        let accept =
            [oci::OCI_INDEX, oci::OCI_MANIFEST, oci::DOCKER_LIST, oci::DOCKER_MANIFEST].join(", ");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(&accept).expect("media types are ASCII"));
        let text = self.small(&url, &headers, reference).await?;
        let digest = Digest::of(&text);
        if reference.starts_with("sha256:") && digest.as_str() != reference {
            return Err(ImageError::Bad(format!(
                "the registry gave a manifest with the digest {digest} for {reference}"
            )));
        }
        Ok((Document::parse(&text)?, digest))
    }

    /// A small blob, checked.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let url = format!("{}/blobs/{}", self.base, descriptor.digest);
        let text = self.small(&url, &HeaderMap::new(), descriptor.digest.as_str()).await?;
        if Digest::of(&text) != descriptor.digest {
            return Err(ImageError::Bad(format!(
                "the registry gave something else for {}",
                descriptor.digest
            )));
        }
        Ok(text)
    }

    async fn small(&self, url: &str, headers: &HeaderMap, what: &str) -> Result<Vec<u8>> {
        let limits = Limits { max_bytes: MAX_DOCUMENT_BYTES, ..Limits::default() };
        let mut tries = 0;
        loop {
            tries += 1;
            let mut answer = self.get(url, headers, &limits).await?;
            if answer.status != StatusCode::OK {
                return Err(refused(&answer, what));
            }
            match answer.body.bytes().await {
                Ok(text) => return Ok(text),
                Err(err) if tries < TRIES && is_transient(&err) => pause(tries, None).await,
                Err(err) => return Err(Error::from(err).into()),
            }
        }
    }

    /// Downloads a blob into `path`, going on where an earlier attempt stopped. Its digest is
    /// not checked here: unpacking hashes it anyway.
    pub(crate) async fn download(
        &self,
        blob: &Descriptor,
        path: &Path,
        progress: &Progress,
    ) -> Result<()> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let mut failures = 0;
        loop {
            match self.attempt(&url, blob, path, progress).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Fatal(err)) => return Err(err),
                Err(Attempt::Broken(err)) => {
                    failures += 1;
                    if failures >= TRIES {
                        return Err(Error::from(err).into());
                    }
                    tracing::debug!(%err, "a download broke; it goes on");
                    pause(failures, None).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        url: &str,
        blob: &Descriptor,
        path: &Path,
        progress: &Progress,
    ) -> Result<(), Attempt> {
        let io = |err| Attempt::Fatal(ImageError::io("write", path)(err));
        let mut file = tokio::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .await
            .map_err(io)?;
        let mut done = file.metadata().await.map_err(io)?.len();
        if done > blob.size {
            file.set_len(0).await.map_err(io)?;
            done = 0;
        }
        if done == blob.size && blob.size > 0 {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if done > 0 {
            let range = format!("bytes={done}-");
            headers.insert(RANGE, HeaderValue::from_str(&range).expect("digits"));
        }
        let limits = Limits {
            max_bytes: blob.size,
            total: BLOB_TIME,
            idle: Duration::from_mins(1),
            ..Limits::default()
        };
        let mut answer = self.get(url, &headers, &limits).await.map_err(Attempt::Fatal)?;
        match answer.status {
            StatusCode::OK => {
                file.set_len(0).await.map_err(io)?;
                done = 0;
            }
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, done) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                // The next attempt starts over, without a range.
                file.set_len(0).await.map_err(io)?;
                return Err(Attempt::Broken(EgressError::Protocol {
                    host: answer.target.host().to_string(),
                    detail: "the range was not honoured".into(),
                }));
            }
            _ => return Err(Attempt::Fatal(refused(&answer, blob.digest.as_str()))),
        }
        let mut told = done;
        let tell = |done| {
            // Late progress is worth nothing: a slow listener misses some.
            let _ = progress.try_send(ImageProgress::Bytes {
                part: blob.digest.to_string(),
                done_bytes: done,
                total_bytes: Some(blob.size),
            });
        };
        loop {
            let piece = match answer.body.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(err) => {
                    file.flush().await.map_err(io)?;
                    return Err(Attempt::Broken(err));
                }
            };
            done += piece.len() as u64;
            if done > blob.size {
                return Err(Attempt::Fatal(ImageError::Bad(format!(
                    "the registry sends more for {} than its manifest says",
                    blob.digest
                ))));
            }
            file.write_all(&piece).await.map_err(io)?;
            if done - told >= TELL_BYTES {
                told = done;
                tell(done);
            }
        }
        file.flush().await.map_err(io)?;
        tell(done);
        if done < blob.size {
            return Err(Attempt::Broken(EgressError::Protocol {
                host: answer.target.host().to_string(),
                detail: format!("it stopped after {done} of {} bytes", blob.size),
            }));
        }
        Ok(())
    }

    /// GET with a token where one is asked for, waiting where the registry is busy.
    async fn get(&self, url: &str, headers: &HeaderMap, limits: &Limits) -> Result<Response> {
        let mut renewed = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut headers = headers.clone();
            if let Some(value) = self.authorization.lock().await.clone() {
                headers.insert(AUTHORIZATION, value);
            }
            let answer = match self.client.get(url, headers, limits).await {
                Ok(answer) => answer,
                Err(err) if tries < TRIES && is_transient(&err) => {
                    pause(tries, None).await;
                    continue;
                }
                Err(err) => return Err(Error::from(err).into()),
            };
            match answer.status {
                StatusCode::UNAUTHORIZED if !renewed => {
                    renewed = true;
                    let asked = answer
                        .headers
                        .get(WWW_AUTHENTICATE)
                        .and_then(|value| value.to_str().ok())
                        .map(str::to_owned);
                    drop(answer);
                    let value = self.authorize(asked.as_deref()).await?;
                    *self.authorization.lock().await = Some(value);
                }
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                    if tries < TRIES =>
                {
                    let asked = answer
                        .headers
                        .get(RETRY_AFTER)
                        .and_then(|value| value.to_str().ok()?.parse().ok())
                        .map(Duration::from_secs);
                    if asked.is_some_and(|wait| wait > MAX_WAIT) {
                        return Ok(answer);
                    }
                    pause(tries, asked).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn authorize(&self, challenge: Option<&str>) -> Result<HeaderValue> {
        auth::authorize(&self.client, challenge, &self.scope, &self.config, &self.base).await
    }
}

enum Attempt {
    /// No further attempt helps.
    Fatal(ImageError),
    /// The next attempt may go on.
    Broken(EgressError),
}

const fn is_transient(err: &EgressError) -> bool {
    matches!(
        err,
        EgressError::Connect { .. } | EgressError::Protocol { .. } | EgressError::Timeout { .. }
    )
}

/// Waits as asked, or a little longer each time.
async fn pause(tries: u32, asked: Option<Duration>) {
    let own = Duration::from_millis(100 << tries.min(6));
    tokio::time::sleep(asked.unwrap_or(own).min(MAX_WAIT)).await;
}

fn starts_at(answer: &Response, offset: u64) -> bool {
    answer
        .headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes ")?.split('-').next()?.parse().ok())
        == Some(offset)
}

fn refused(answer: &Response, what: &str) -> ImageError {
    let host = answer.target.host();
    let error = match answer.status {
        StatusCode::NOT_FOUND => {
            Error::new(ErrorCode::NotFound, format!("{host} has no {what:?} in this repository"))
                .hint("check the name and the tag")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::new(ErrorCode::Upstream, format!("{host} does not let us read this repository"))
                .hint(
                    "set username and password for it under [images.registries], or check the name",
                )
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Error::new(ErrorCode::RateLimited, format!("{host} is asked too often"))
                .hint("try again later, or set username and password under [images.registries]")
        }
        status => Error::new(ErrorCode::Upstream, format!("{host} answered {status} for {what:?}")),
    };
    error.into()
}
