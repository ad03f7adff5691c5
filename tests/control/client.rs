//! The least client over TCP: one request a connection, with a token.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Somebody at an address, with a token or none.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.body))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, token }
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let credential = self
            .token
            .as_ref()
            .map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{credential}{more}\r\n", self.address)
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.call_with(method, path, "", body)
    }

    pub(crate) fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&str>,
    ) -> Answer {
        let more = match body {
            Some(body) => format!(
                "Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}",
                body.len()
            ),
            None => format!("Connection: close\r\n{headers}"),
        };
        let mut stream = self.connect();
        let request = self.head(method, path, &more) + body.unwrap_or_default();
        // A server may refuse and close before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        parse(&reply)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, Some(body))
    }

    /// Asks for a WebSocket. What comes back is the connection, after the head of the answer.
    pub(crate) fn upgrade(&self, path: &str) -> (Answer, TcpStream) {
        let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.open(path, more)
    }

    /// Gets something whose answer goes on: the connection, after the head of the answer.
    pub(crate) fn open(&self, path: &str, more: &str) -> (Answer, TcpStream) {
        let mut stream = self.connect();
        stream.write_all(self.head("GET", path, more).as_bytes()).expect("sent");
        let mut reply = Vec::new();
        let mut byte = [0];
        while !reply.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => reply.push(byte[0]),
                _ => break,
            }
        }
        (parse(&reply), stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a time limit");
        stream
    }
}

fn parse(reply: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(reply).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// A masked text frame (RFC 6455 §5.2) of less than 126 bytes; the mask is all zeros.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let length =
        u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}
