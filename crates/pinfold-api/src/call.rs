//! One call of one operation: authorized before anything of its body is read.

use std::{collections::BTreeMap, marker::PhantomData};

use axum::{
    RequestPartsExt,
    body::{Body as AxumBody, HttpBody},
    extract::{FromRequest, Path, Query, Request},
};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, header, request::Parts};
use pinfold_auth::{Caller, Grant, ObjectRef, Operation, operation::Body};
use pinfold_control::{ByteStream, Node, RateState, Service};
use pinfold_types::{Error, ErrorCode, Result, limits::MAX_BODY_BYTES, name::excerpt};
use serde::de::DeserializeOwned;

use crate::{
    body,
    json::parse,
    openapi::{Uploaded, takes_query},
    reply::Failure,
};

/// An authorized call. It gives its grant away once, to the service function.
#[derive(Debug)]
pub(crate) struct Call<O: Operation> {
    grant: Grant<O>,
    rate: Option<RateState>,
    path: BTreeMap<String, String>,
    parts: Parts,
    body: AxumBody,
    operation: PhantomData<O>,
}

impl<O: Operation, N: Node> FromRequest<Service<N>> for Call<O> {
    type Rejection = Failure;

    async fn from_request(request: Request, service: &Service<N>) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let path: Path<BTreeMap<String, String>> = parts.extract().await.map_err(|_| {
            Error::new(ErrorCode::InvalidPath, "the path is not valid percent-encoded UTF-8")
        })?;
        let Path(path) = path;
        let caller = parts
            .extensions
            .get::<Caller>()
            .ok_or_else(|| Error::new(ErrorCode::Unauthenticated, "no credential was given"))?;
        let named = path.get("ref").map(String::as_str);
        // On a route of another operation with a fixed last part, that part is the reference: see
        // `Table::add`.
        let reference = named.or_else(|| fixed(O::INFO.path, parts.uri.path())).unwrap_or_default();
        let object = ObjectRef::parse(O::INFO.object, reference)?;
        let (grant, rate) = service.grant_rated::<O>(caller, object).await?;
        let unasked = parts.uri.query().is_some_and(|query| !query.is_empty());
        if unasked && !takes_query(O::INFO.name) {
            let message = format!("{} takes no query", O::INFO.name);
            return Err(Error::new(ErrorCode::InvalidArgument, message).into());
        }
        let length = declared_length(&parts)?;
        match O::INFO.body {
            Body::None if !body.is_end_stream() && length != Some(0) => {
                return Err(Error::new(
                    ErrorCode::InvalidBody,
                    format!("{} takes no body", O::INFO.name),
                )
                .into());
            }
            Body::Json(most) if length.is_some_and(|length| length > bound(most)) => {
                return Err(body::too_large(most).into());
            }
            _ => {}
        }
        Ok(Self { grant, rate, path, parts, body, operation: PhantomData })
    }
}

/// The last part of `path`, where the operation's own route has `{ref}`.
fn fixed<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(route.strip_suffix("{ref}")?)
}

impl<O: Operation> Call<O> {
    /// What is left of the caller's rate.
    pub(crate) const fn rate(&self) -> Option<RateState> {
        self.rate
    }

    /// The grant of a call that has nothing else.
    pub(crate) fn grant(self) -> Grant<O> {
        self.grant
    }

    /// The grant and the JSON body. An operation whose fields are all optional may come without.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<(Grant<O>, T)> {
        let most = match O::INFO.body {
            Body::Json(most) => most,
            Body::Stream | Body::None => MAX_BODY_BYTES,
        };
        let typed = is_json(&self.parts.headers);
        let bytes = body::collect(self.body, most, body::WAIT).await?;
        if typed == Some(false) || (typed.is_none() && !bytes.is_empty()) {
            return Err(Error::new(
                ErrorCode::UnsupportedMedia,
                format!("{} takes application/json", O::INFO.name),
            ));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        Ok((self.grant, parse(text)?))
    }

    /// The grant, a request and an upload: the request as JSON in the body, and no upload; or as
    /// JSON in `?request=`, and the body is the upload.
    pub(crate) async fn json_or_upload<T>(self) -> Result<(Grant<O>, T, ByteStream)>
    where
        T: DeserializeOwned,
    {
        if is_json(&self.parts.headers) == Some(true) {
            if self.parts.uri.query().is_some_and(|query| !query.is_empty()) {
                let message = "the request is in the body, and so cannot be in the query too";
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            let (grant, request) = self.json().await?;
            return Ok((grant, request, Box::pin(futures_util::stream::empty())));
        }
        let Uploaded { request } = read_query(&self.parts)?;
        Ok((self.grant, parse(request.as_bytes())?, Box::pin(body::stream(self.body))))
    }

    /// The grant, and the query; unknown names in it are refused.
    pub(crate) fn query<T: DeserializeOwned>(self) -> Result<(Grant<O>, T)> {
        let query = read_query(&self.parts)?;
        Ok((self.grant, query))
    }

    /// The grant, the query, and the body as it comes.
    pub(crate) fn stream<T: DeserializeOwned>(
        self,
    ) -> Result<(Grant<O>, T, impl Stream<Item = Result<Bytes>> + Send + 'static)> {
        let query = read_query(&self.parts)?;
        Ok((self.grant, query, body::stream(self.body)))
    }

    /// A further part of the path, such as `exec`.
    pub(crate) fn path<T: std::str::FromStr<Err = Error>>(&self, name: &str) -> Result<T> {
        self.path.get(name).map(String::as_str).unwrap_or_default().parse()
    }

    /// The port in the path.
    pub(crate) fn port(&self) -> Result<u16> {
        let text = self.path.get("port").map(String::as_str).unwrap_or_default();
        text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not a port from 1 to 65535", excerpt(text)),
            )
        })
    }

    /// The grant, and what a WebSocket is made of.
    pub(crate) fn into_parts(self) -> (Grant<O>, Parts) {
        (self.grant, self.parts)
    }

    /// Head of the request.
    pub(crate) const fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// Whether the body is said to be JSON; `None` when nothing is said.
fn is_json(headers: &HeaderMap) -> Option<bool> {
    body::is(headers, "application/json")
}

/// The query of a request.
pub(crate) fn read_query<T: DeserializeOwned>(parts: &Parts) -> Result<T> {
    // The reader below would put a replacement character there, which names another file.
    if !is_utf8(parts.uri.query().unwrap_or_default()) {
        let message = "the query is not valid percent-encoded UTF-8";
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    Query::try_from_uri(&parts.uri).map(|Query(query)| query).map_err(|error| {
        let why = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), ToString::to_string);
        Error::new(ErrorCode::InvalidArgument, format!("the query is not what is taken: {why}"))
    })
}

/// Whether percent-encoded text is UTF-8.
fn is_utf8(text: &str) -> bool {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let pair = (*byte == b'%').then(|| digit(after.first()).zip(digit(after.get(1)))).flatten();
        if let Some(octet) = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            decoded.push(octet);
            rest = after.get(2..).unwrap_or_default();
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

fn declared_length(parts: &Parts) -> Result<Option<u64>> {
    let Some(value) = parts.headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed
        .map(Some)
        .ok_or_else(|| Error::new(ErrorCode::InvalidBody, "the Content-Length is not a number"))
}

fn bound(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
