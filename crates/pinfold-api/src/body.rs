//! Bodies as they come: of a known kind, within bounds of size and time.

use std::{io::ErrorKind, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pinfold_types::{Error, ErrorCode, Result};

/// Longest wait for a JSON body, and for the next chunk of a streamed one.
pub(crate) const WAIT: Duration = Duration::from_mins(1);

/// Whether the body is said to be of this media type, parameters aside; `None` when nothing is
/// said.
pub(crate) fn is(headers: &HeaderMap, media_type: &str) -> Option<bool> {
    headers.get(header::CONTENT_TYPE).map(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
    })
}

/// A whole body of at most this many bytes, which comes this soon.
pub(crate) async fn collect(body: Body, most: usize, wait: Duration) -> Result<Bytes> {
    let collected = tokio::time::timeout(wait, Limited::new(body, most).collect()).await;
    match collected.map_err(|_| slow(wait))? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Err(error) => Err(cut(error.as_ref())),
    }
}

/// A body as it comes; one that breaks or stalls ends in an error that says so.
pub(crate) fn stream(body: Body) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let frames = body.into_data_stream().map(|chunk| chunk.map_err(|error| cut(&error)));
    futures_util::stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        match tokio::time::timeout(WAIT, frames.next()).await {
            Err(_) => Some((Err(slow(WAIT)), None)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(frames))),
        }
    })
}

/// A body over its limit.
pub(crate) fn too_large(most: usize) -> Error {
    Error::new(ErrorCode::TooLarge, format!("the body is larger than {most} bytes"))
}

fn slow(wait: Duration) -> Error {
    Error::new(ErrorCode::Timeout, format!("no body came for {} s", wait.as_secs()))
}

/// A body that broke: what its chunks are, or that it ended.
fn cut(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData)) {
            let message = "the body is not valid chunked encoding";
            return Error::new(ErrorCode::InvalidBody, message).context(error);
        }
        cause = error.source();
    }
    Error::new(ErrorCode::Cancelled, "the body ended before it was whole").context(error)
}
