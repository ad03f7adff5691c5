//! As much of the API's client as the measurements need, without the cost of a general one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// One kept connection, requests one after another.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Sends JSON and reads JSON; an error status is an error.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: pinfold\r\n{kind}Content-Length: {}\r\n\r\n{text}",
            text.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let length = self.head(path)?;
        let mut body = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut body)?;
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&body)?) }
    }

    /// Reads a body of any size and throws it away; says how long it was.
    pub(crate) fn download(&mut self, path: &str) -> anyhow::Result<u64> {
        let request =
            format!("GET /api/v1{path} HTTP/1.1\r\nHost: pinfold\r\nConnection: close\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.head(path)?;
        Ok(std::io::copy(&mut self.stream, &mut std::io::sink())?)
    }

    /// Sends `length` bytes of zeros as a body.
    pub(crate) fn upload(&mut self, path: &str, length: u64) -> anyhow::Result<()> {
        let request = format!(
            "PUT /api/v1{path} HTTP/1.1\r\nHost: pinfold\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes())?;
        let block = vec![0_u8; 1 << 20];
        for _ in 0..length >> 20 {
            stream.write_all(&block)?;
        }
        let length = self.head(path)?;
        let mut reply = vec![0; usize::try_from(length)?];
        Ok(self.stream.read_exact(&mut reply)?)
    }

    /// Reads a reply's head; says how long the body is, 0 when it does not say.
    fn head(&mut self, path: &str) -> anyhow::Result<u64> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status: u16 =
            line.split_whitespace().nth(1).context("a reply has a status")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        if !(200..300).contains(&status) {
            let mut body = vec![0; usize::try_from(length)?];
            self.stream.read_exact(&mut body)?;
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(length)
    }
}

/// A request to run `argv` in a new workspace of `image`.
pub(crate) fn run_request(image: &str, argv: &[&str]) -> Value {
    json!({ "workspace": { "image": image }, "exec": { "command": { "argv": argv } } })
}

/// A request to run `argv` in a workspace.
pub(crate) fn exec_request(argv: &[&str]) -> Value {
    json!({ "command": { "argv": argv } })
}

/// What one command's stream showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streamed {
    /// To the first byte of output, or to the end when there was none.
    pub(crate) first: Duration,
    /// To the message that it has ended.
    pub(crate) end: Duration,
    /// Bytes of output.
    pub(crate) bytes: u64,
}

/// Opens a stream, sends the request, reads to its end. The time begins before the connection.
pub(crate) fn stream(socket: &Path, path: &str, request: &Value) -> anyhow::Result<Streamed> {
    let began = Instant::now();
    let mut socket = open(socket, path)?;
    socket.send(Message::text(request.to_string()))?;
    let mut seen = Streamed::default();
    loop {
        match socket.read()? {
            Message::Binary(data) => {
                if seen.bytes == 0 {
                    seen.first = began.elapsed();
                }
                seen.bytes += u64::try_from(data.len().saturating_sub(1))?;
            }
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text)?;
                match message["type"].as_str() {
                    Some("started") => {}
                    Some("exited") => {
                        ensure!(message["result"]["exit_code"] == 0, "it ended with {message}");
                        seen.end = began.elapsed();
                        if seen.bytes == 0 {
                            seen.first = seen.end;
                        }
                        return Ok(seen);
                    }
                    _ => bail!("the stream failed: {message}"),
                }
            }
            Message::Close(_) => bail!("the stream closed early"),
            _ => {}
        }
    }
}

fn open(socket: &Path, path: &str) -> anyhow::Result<WebSocket<UnixStream>> {
    let stream = UnixStream::connect(socket)?;
    let url = format!("ws://pinfold/api/v1{path}");
    match tungstenite::client(url, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(err) => bail!("{path}: {err}"),
    }
}
