//! Calls: one request, one reply.

use std::{
    fmt::Write,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use pinfold_api::Problem;
use pinfold_types::{Error, ErrorCode, Result, api::Page};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{Client, REPLY, lost};

/// Most bytes of a JSON reply.
const MAX_REPLY_BYTES: usize = 256 << 20;

/// What is sent with a request.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing, or all of it.
    Whole(Option<Bytes>),
    /// As it comes.
    Channel(mpsc::Receiver<std::io::Result<Bytes>>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Channel(receiver) => {
                receiver.poll_recv(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                hyper::body::SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Channel(_) => hyper::body::SizeHint::default(),
        }
    }
}

impl Client {
    /// `GET` of a JSON object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        decode(self.request(Method::GET, path, None, Body::Whole(None)).await?).await
    }

    /// Every entry of a list, page by page.
    pub(crate) async fn pages<T: DeserializeOwned>(&self, collection: &str) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut pairs = vec![("limit", "1000")];
            if let Some(cursor) = &cursor {
                pairs.push(("cursor", cursor));
            }
            let page: Page<T> = self.get(&format!("{collection}{}", query(&pairs))).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// A request with a JSON body and a JSON reply.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let bytes = serde_json::to_vec(body).map_err(Error::internal)?;
        let body = Body::Whole(Some(bytes.into()));
        decode(self.request(method, path, Some("application/json"), body).await?).await
    }

    /// A request without body, with a JSON reply.
    pub(crate) async fn act<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        decode(self.request(method, path, None, Body::Whole(None)).await?).await
    }

    /// A request whose reply, when it went well, is left to the caller.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Body,
    ) -> Result<Response<Incoming>> {
        let mut request =
            Request::builder().method(method).uri(path).body(body).map_err(Error::internal)?;
        self.sign(request.headers_mut());
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let mut sender = self.http().await?;
        let reply = sender.send_request(request);
        let response = tokio::time::timeout(REPLY, reply)
            .await
            .map_err(|_| Error::new(ErrorCode::Timeout, "the server did not answer in time"))?
            .map_err(|error| lost(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(problem(response).await) }
    }
}

/// The error that a failed reply carries.
pub(super) async fn problem(response: Response<Incoming>) -> Error {
    let status = response.status();
    match whole(response).await.map(|bytes| serde_json::from_slice::<Problem>(&bytes)) {
        Ok(Ok(problem)) => {
            let request_id = problem.request_id.clone();
            let mut error = Error::from(problem);
            if let (ErrorCode::Internal, Some(id)) = (error.code, request_id) {
                error.hint = Some(format!("look for {id} in the server's log"));
            }
            error
        }
        _ => Error::new(ErrorCode::Internal, format!("the server answered {status}")),
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES);
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| lost(&error))
}

async fn decode<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let bytes = whole(response).await?;
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| {
        Error::new(ErrorCode::Internal, "the server's answer could not be read")
            .hint("the server may be of another version: pinfold version")
            .context(error)
    })
}

/// One path segment, percent-encoded (RFC 3986 §2).
pub(crate) fn encode_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A query of these pairs, `?` included.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&encode_segment(value));
    }
    out
}
