//! Peers that do not keep to the protocol, at both ends.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use pinfold_proto::{
    Decoder, ExecStarted, Frame, Hello, Kind, PROTOCOL, SendQueue, Welcome,
    frame::{self, header},
    handshake::SecretField,
};
use pinfold_types::{BootSecret, ErrorCode, ExecId, WorkspaceId, exec::ExecSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{
    harness::{BOOT, Box, SECRET, run, sh},
    node::guest::{ExecEvent, Guest},
};

/// A connection that speaks frames by hand.
struct Raw {
    socket: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Raw {
    async fn dial(workspace: &Box) -> Self {
        let socket = UnixStream::connect(&workspace.socket).await.unwrap();
        Self { socket, decoder: Decoder::default(), buffer: BytesMut::new() }
    }

    async fn greeted(workspace: &Box) -> Self {
        let mut raw = Self::dial(workspace).await;
        let hello = Hello {
            protocol: PROTOCOL + 7,
            workspace: workspace.workspace,
            boot: BOOT,
            secret: SecretField(BootSecret::from_bytes(SECRET)),
        };
        raw.say(0, Kind::Message, &serde_json::to_vec(&hello).unwrap()).await;
        let welcome: Welcome = serde_json::from_slice(&raw.hear().await.unwrap().payload).unwrap();
        assert_eq!((welcome.protocol, welcome.boot), (PROTOCOL, BOOT));
        raw
    }

    async fn say(&mut self, stream: u32, kind: Kind, payload: &[u8]) {
        self.raw(&header(payload.len(), stream, kind)).await;
        self.raw(payload).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        // The guest may have hung up already, which is what most of these want.
        let _ = self.socket.write_all(bytes).await;
    }

    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits until the guest hangs up; whatever it says before is dropped.
    async fn hung_up(mut self) -> Duration {
        let began = Instant::now();
        let end = async { while self.hear().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("it hangs up");
        began.elapsed()
    }
}

#[tokio::test]
async fn strangers_are_cut_off_and_cannot_crowd_the_host_out() {
    let workspace = Box::start();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(Raw::dial(&workspace).await);
    }
    // Those that say nothing have two seconds, and never more than sixteen places; garbage and
    // frames that are too long have no time at all.
    let first = silent.remove(0).hung_up().await;
    assert!((1..4).contains(&first.as_secs()), "{first:?}");
    drop(silent);
    for garbage in [
        vec![0xff; 64],
        vec![0; 64],
        b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n".to_vec(),
        header(frame::MAX_HELLO + 1, 0, Kind::Message).to_vec(),
        [&header(2, 0, Kind::Message)[..], b"{}"].concat(),
        [&header(2, 0, Kind::Open)[..], b"{}"].concat(),
        [&header(2, 1, Kind::Message)[..], b"{}"].concat(),
        [
            &header(900, 0, Kind::Part)[..],
            &[b'['; 900],
            &header(900, 0, Kind::Part)[..],
            &[b'['; 900],
        ]
        .concat(),
    ] {
        let mut raw = Raw::dial(&workspace).await;
        raw.raw(&garbage).await;
        let took = raw.hung_up().await;
        // A fragment that never ends is only cut off by the clock.
        assert!(took < Duration::from_millis(2600), "{garbage:?} {took:?}");
    }
    let guest = workspace.connect().await;
    assert_eq!(run(&guest, sh("exit 3")).await.result.exit_code, Some(3));
}

#[tokio::test]
async fn a_host_that_breaks_the_protocol_is_cut_off_and_another_may_come() {
    let workspace = Box::start();
    let stat = br#"{"op":"stat","path":"/"}"#;
    let cat = format!(
        r#"{{"op":"exec","id":"{}","spec":{{"command":{{"argv":["sleep","60"]}},"stdin":true}}}}"#,
        ExecId::generate()
    );
    let window = (pinfold_proto::flow::WINDOW + 1).to_be_bytes();
    let full = vec![0; 1 << 20];
    let breaches: Vec<Vec<(u32, Kind, &[u8])>> = vec![
        vec![(1, Kind::Data0, b"x")],
        vec![(1, Kind::Close, b"{}")],
        vec![(2, Kind::Open, stat)],
        vec![(3, Kind::Open, stat), (3, Kind::Open, stat)],
        vec![(5, Kind::Open, stat), (3, Kind::Open, stat)],
        vec![(1, Kind::Open, cat.as_bytes()), (1, Kind::Data1, b"x")],
        vec![(1, Kind::Open, cat.as_bytes()), (1, Kind::Window, &window)],
        vec![(1, Kind::Open, cat.as_bytes()), (1, Kind::Data0, b""), (1, Kind::Data0, b"x")],
        vec![(1, Kind::Open, cat.as_bytes()), (1, Kind::Data0, &full), (1, Kind::Data0, &full)],
        vec![(1, Kind::Part, b"{"), (3, Kind::Open, stat)],
    ];
    for (place, frames) in breaches.into_iter().enumerate() {
        let mut raw = Raw::greeted(&workspace).await;
        for (stream, kind, payload) in frames {
            // The command of an earlier case is known already: a new id each time.
            let fresh = String::from_utf8_lossy(payload).into_owned();
            match fresh.find("exec_") {
                Some(at) if kind == Kind::Open => {
                    let mut text = fresh.clone();
                    text.replace_range(at..at + 31, &ExecId::generate().to_string());
                    raw.say(stream, kind, text.as_bytes()).await;
                }
                _ => raw.say(stream, kind, payload).await,
            }
        }
        let took = raw.hung_up().await;
        assert!(took < Duration::from_secs(2), "{place}: {took:?}");
    }
    assert_eq!(run(&workspace.connect().await, sh("exit 3")).await.result.exit_code, Some(3));
}

#[tokio::test]
async fn strange_requests_are_answered_and_late_frames_are_dropped() {
    let workspace = Box::start();
    let mut raw = Raw::greeted(&workspace).await;
    for (place, text) in [
        "",
        "{",
        "[]",
        r#"{"op":"teleport"}"#,
        r#"{"op":"stat"}"#,
        "\u{0}",
        r#"{"op":"exec","id":"x"}"#,
    ]
    .iter()
    .enumerate()
    {
        let stream = u32::try_from(place).unwrap() * 2 + 1;
        raw.say(stream, Kind::Open, text.as_bytes()).await;
        let answer = raw.hear().await.unwrap();
        assert_eq!((answer.stream, answer.kind), (stream, Kind::Reset));
        let error: pinfold_types::Error = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(error.code, ErrorCode::Unprocessable);
        // Ended: whatever still comes for it was on its way.
        raw.say(stream, Kind::Data0, b"late").await;
        raw.say(stream, Kind::Reset, b"").await;
        raw.say(stream, Kind::Window, &[0, 0, 0, 1]).await;
    }
    raw.say(0, Kind::Ping, b"12345678").await;
    let pong = raw.hear().await.unwrap();
    assert_eq!((pong.kind, &pong.payload[..]), (Kind::Pong, &b"12345678"[..]));
    // Messages that mean nothing to a command change nothing.
    let exec = format!(
        r#"{{"op":"exec","id":"{}","spec":{{"command":{{"shell":"sleep 0.2; exit 8"}},"stdin":false}}}}"#,
        ExecId::generate()
    );
    raw.say(101, Kind::Open, exec.as_bytes()).await;
    let started: ExecStarted = serde_json::from_slice(&raw.hear().await.unwrap().payload).unwrap();
    assert!(started.pid > 1);
    for text in [
        "",
        "[[[[",
        r#"{"type":"dance"}"#,
        r#"{"type":"resize","size":{"cols":0,"rows":9}}"#,
        r#"{"type":"signal","signal":99}"#,
        r#"{"type":"lost","bytes":5}"#,
    ] {
        raw.say(101, Kind::Message, text.as_bytes()).await;
    }
    let end = raw.hear().await.unwrap();
    assert_eq!(end.kind, Kind::Close);
    assert!(String::from_utf8_lossy(&end.payload).contains("\"exit_code\":8"));
}

#[tokio::test]
async fn more_streams_than_fit_are_refused_one_by_one() {
    let workspace = Box::start();
    let mut raw = Raw::greeted(&workspace).await;
    let watch = br#"{"op":"watch","path":"/"}"#;
    let mut queue = SendQueue::default();
    for place in 0..3000_u32 {
        queue.push_json(place * 2 + 1, Kind::Open, watch).unwrap();
    }
    raw.raw(&queue.to_vec()).await;
    let (mut refused, mut served) = (0, 0);
    while refused + served < 3000 {
        match raw.hear().await.unwrap().kind {
            // Too many streams, or beyond the kernel's allowance of inotify instances.
            Kind::Reset => refused += 1,
            _ => served += 1,
        }
    }
    assert!(refused >= 3000 - 2048, "{refused} refused, {served} served");
    drop(raw);
    assert_eq!(run(&workspace.connect().await, sh("exit 3")).await.result.exit_code, Some(3));
}

/// A guest that says what the test wants, after a right handshake.
async fn false_guest(words: Vec<u8>) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let workspace = WorkspaceId::generate();
    let serve = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let _ = socket.read(&mut hello).await.unwrap();
        let mut queue = SendQueue::default();
        let welcome = Welcome { protocol: 1, workspace, boot: 1, version: String::new() };
        queue.push_message(0, Kind::Message, &welcome).unwrap();
        socket.write_all(&queue.to_vec()).await.unwrap();
        let _ = socket.read(&mut hello).await.unwrap();
        let _ = socket.write_all(&words).await;
        socket
    });
    let guest =
        Guest::connect(&socket, &workspace, 1, &BootSecret::from_bytes([0; 32])).await.unwrap();
    // The socket stays open as long as the test runs.
    tokio::spawn(async move {
        let _socket = serve.await;
        std::future::pending::<()>().await;
    });
    guest
}

#[tokio::test]
async fn a_guest_that_breaks_the_protocol_is_cut_off() {
    let mib = vec![0; 1 << 20];
    let flood = |kind| {
        let mut words = Vec::new();
        for _ in 0..3 {
            words.extend_from_slice(&header(mib.len(), 1, kind));
            words.extend_from_slice(&mib);
        }
        words
    };
    let tiny: Vec<u8> =
        (0..40_000).flat_map(|_| [&header(1, 1, Kind::Data1)[..], b"x"].concat()).collect();
    let messages: Vec<u8> =
        (0..2000).flat_map(|_| [&header(2, 1, Kind::Message)[..], b"{}"].concat()).collect();
    let parts: Vec<u8> =
        (0..9).flat_map(|_| [&header(mib.len(), 1, Kind::Part)[..], &mib[..]].concat()).collect();
    for (name, words) in [
        ("garbage", vec![0xff; 100]),
        ("too long", header(0, 1, Kind::Data1).map(|byte| byte | 0x80).to_vec()),
        ("beyond its credit", flood(Kind::Data1)),
        ("tiny frames beyond its credit", tiny),
        ("messages without end", messages),
        ("an endless text", parts),
        ("a stream nobody opened", header(0, 9, Kind::Data0).to_vec()),
        ("an open of a host's stream", header(0, 1, Kind::Open).to_vec()),
        ("credit from nowhere", [&header(4, 1, Kind::Window)[..], &[0, 0x20, 0, 0]].concat()),
        ("a connection that is no stream", header(0, 0, Kind::Data0).to_vec()),
    ] {
        let guest = false_guest(words).await;
        let failed = match guest.exec(ExecId::generate(), ExecSpec::argv(["true"])).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                // What was within bounds may be read; then comes the end.
                guest.closed().await;
                match stream.next().await.unwrap() {
                    ExecEvent::Failed(error) => break error,
                    ExecEvent::Exited(_) => panic!("{name}"),
                    _ => {}
                }
            },
        };
        assert_eq!(failed.code, ErrorCode::Upstream, "{name}");
        assert!(guest.is_closed(), "{name}");
    }
}

#[tokio::test]
async fn a_guest_that_opens_streams_is_refused_without_harm() {
    let words =
        [&header(2, 2, Kind::Open)[..], b"{}", &header(2, 1, Kind::Close)[..], b"[]"].concat();
    let guest = false_guest(words).await;
    assert!(guest.execs().await.unwrap().is_empty());
    assert!(!guest.is_closed());
    let nonsense = [&header(3, 1, Kind::Close)[..], b"{]}"].concat();
    let guest = false_guest(nonsense).await;
    assert_eq!(guest.execs().await.unwrap_err().code, ErrorCode::Upstream);
    let rude = header(0, 1, Kind::Reset).to_vec();
    let guest = false_guest(rude).await;
    assert_eq!(guest.execs().await.unwrap_err().code, ErrorCode::Upstream);
}
