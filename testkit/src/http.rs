//! The least HTTP that a test needs to speak to the server's socket itself.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context;

/// A reply of the API.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header lines, as they came.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|err| panic!("{err}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Sends one request with a connection of its own; raw bytes come back parsed.
pub(crate) fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<Reply> {
    let text = body.map(ToString::to_string).unwrap_or_default();
    let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: pinfold\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    raw(socket, head.as_bytes())
}

/// Sends bytes as they are and reads the reply to its end.
pub(crate) fn raw(socket: &Path, bytes: &[u8]) -> anyhow::Result<Reply> {
    let mut stream = UnixStream::connect(socket).context("the server's socket")?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).context("the reply")?;
    parse(&reply)
}

fn parse(reply: &[u8]) -> anyhow::Result<Reply> {
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").context("a reply has a head")?;
    let headers = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = headers
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("a reply has a status")?;
    let rest = &reply[end + 4..];
    let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
    Ok(Reply { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").context("a chunk has a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let from = end + 2;
        body.extend_from_slice(rest.get(from..from + size).context("a chunk is whole")?);
        rest = rest.get(from + size + 2..).context("a chunk has an end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_replies_are_read() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("a reply");
        assert_eq!((plain.status, plain.body.as_slice()), (200, b"{}".as_slice()));
        let chunked =
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).expect("a reply").body, b"abcd");
        assert!(parse(b"nonsense").is_err());
    }
}
