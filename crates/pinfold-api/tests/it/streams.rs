//! Streams, spoken to by another implementation of RFC 6455.

use futures_util::{SinkExt, StreamExt};
use pinfold_types::{
    ErrorCode, ExecId,
    api::{ExecInput, ExecOutput},
    exec::TtySize,
};
use tokio::{io::AsyncWriteExt, net::UnixStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, protocol::frame::coding::CloseCode},
};

use crate::{node::FLOOD, server::Served};

type Socket = WebSocketStream<UnixStream>;

async fn open(served: &Served, path: &str) -> Result<Socket, Error> {
    let stream = served.connect().await;
    client_async(format!("ws://pinfold{path}"), stream).await.map(|(socket, _)| socket)
}

async fn exec(served: &Served, word: &str) -> Socket {
    let mut socket = open(served, "/api/v1/workspaces/fix/exec").await.expect("a socket");
    let spec = format!(r#"{{"command":{{"argv":["{word}"]}},"stdin":true}}"#);
    socket.send(Message::text(spec)).await.expect("the request");
    assert!(matches!(said(&mut socket).await, ExecOutput::Started { pid: 2, .. }));
    socket
}

async fn next(socket: &mut Socket) -> Message {
    socket.next().await.expect("a message").expect("a good one")
}

async fn said(socket: &mut Socket) -> ExecOutput {
    let text = next(socket).await.into_text().expect("text");
    serde_json::from_str(&text).expect("ExecOutput")
}

async fn tell(socket: &mut Socket, input: &ExecInput) {
    let text = serde_json::to_string(input).expect("JSON");
    socket.send(Message::text(text)).await.expect("sent");
}

#[tokio::test]
async fn bytes_sizes_and_signals_go_in_and_come_out() {
    let served = Served::start(8).await;
    for path in ["/api/v1/workspaces/fix/exec", "/api/v1/run"] {
        let mut socket = open(&served, path).await.expect("a socket");
        let request = r#"{"command":{"argv":["echo"]},"stdin":true}"#;
        let request =
            if path.ends_with("run") { format!(r#"{{"exec":{request}}}"#) } else { request.into() };
        socket.send(Message::text(request)).await.expect("the request");
        assert!(matches!(said(&mut socket).await, ExecOutput::Started { .. }));
        for size in [0_usize, 1, 125, 126, 65_535, 65_536, 256 << 10] {
            let data: Vec<u8> = (0..=250).cycle().take(size).collect();
            socket.send(Message::binary(data.clone())).await.expect("sent");
            let back = next(&mut socket).await.into_data();
            assert_eq!((back[0], &back[1..]), (1, data.as_slice()), "{size}");
        }
        tell(&mut socket, &ExecInput::Resize { size: TtySize { cols: 80, rows: 24 } }).await;
        assert_eq!(next(&mut socket).await.into_data().as_ref(), b"\x0280x24");
        tell(&mut socket, &ExecInput::Signal { signal: 2 }).await;
        assert_eq!(next(&mut socket).await.into_data().as_ref(), b"\x02signal 2");
        socket.send(Message::Ping(b"there?".as_slice().into())).await.expect("sent");
        assert_eq!(next(&mut socket).await, Message::Pong(b"there?".as_slice().into()));
        tell(&mut socket, &ExecInput::Eof).await;
        let ExecOutput::Exited { result } = said(&mut socket).await else { panic!("no end") };
        assert_eq!(result.exit_code, Some(3));
        let Message::Close(Some(close)) = next(&mut socket).await else { panic!("no close") };
        assert_eq!(close.code, CloseCode::Normal);
    }
}

#[tokio::test]
async fn a_flood_arrives_whole_in_bounded_messages() {
    let served = Served::start(8).await;
    let mut socket = exec(&served, "flood").await;
    let mut total = 0;
    loop {
        match next(&mut socket).await {
            Message::Binary(data) => {
                assert!(data.len() <= (256 << 10) + 1, "{}", data.len());
                assert!(data[1..].iter().all(|byte| *byte == 7));
                total += data.len() - 1;
            }
            other => {
                assert!(other.is_text(), "{other:?}");
                break;
            }
        }
    }
    assert_eq!(total, FLOOD);
}

#[tokio::test]
async fn a_client_that_does_not_read_can_still_send_a_signal() {
    let served = Served::start(8).await;
    let mut socket = exec(&served, "stuck").await;
    // Nothing is read here: the server's sending loop stands, its reading loop must not.
    tell(&mut socket, &ExecInput::Signal { signal: 15 }).await;
    let mut rest = 0;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(data) => rest += data.len(),
            Message::Close(_) => break,
            _ => {}
        }
        assert!(rest < 64 << 20, "the signal never arrived");
    }
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_the_handshake() {
    let served = Served::start(8).await;
    let exec = ExecId::generate();
    for (path, status) in [
        (format!("/api/v1/workspaces/no/execs/{exec}/attach"), 404),
        ("/api/v1/workspaces/no/ports/80".to_owned(), 404),
        ("/api/v1/workspaces/fix/ports/9".to_owned(), 409),
        ("/api/v1/workspaces/fix/files/watch?path=x".to_owned(), 400),
        ("/api/v1/workspaces/a%20b/exec".to_owned(), 400),
    ] {
        let Err(Error::Http(answer)) = open(&served, &path).await else {
            panic!("{path} was let in");
        };
        assert_eq!(answer.status(), status, "{path}");
    }
    let head = "GET /api/v1/run HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://evil.example";
    let mut stream = served.connect().await;
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 403");
}

#[tokio::test]
async fn errors_after_the_handshake_come_as_the_last_message() {
    let served = Served::start(8).await;
    for (path, first, code) in [
        ("/api/v1/workspaces/fix/exec", r#"{"command":{"argv":[]}}"#, ErrorCode::InvalidArgument),
        ("/api/v1/workspaces/fix/exec", r#"{"comand":1}"#, ErrorCode::InvalidBody),
        ("/api/v1/run", r#"{"workspace":{"ttl_ms":0}}"#, ErrorCode::InvalidArgument),
        ("/api/v1/run", r#"{"exec":[["echo"]]}"#, ErrorCode::InvalidBody),
        ("/api/v1/run", "", ErrorCode::InvalidBody),
    ] {
        let mut socket = open(&served, path).await.expect("a socket");
        socket.send(Message::text(first)).await.expect("sent");
        let ExecOutput::Failed { error } = said(&mut socket).await else { panic!("{path}") };
        assert_eq!(error.code, code, "{path} {first}");
        assert!(matches!(next(&mut socket).await, Message::Close(_)));
    }
}

#[tokio::test]
async fn frames_against_the_rules_end_the_stream_with_their_code() {
    let served = Served::start(8).await;
    let close = async |socket: &mut Socket| loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
            Some(Ok(_)) => {}
            other => panic!("no close: {other:?}"),
        }
    };
    let mut socket = exec(&served, "sleep").await;
    // The server may close before it has taken all of it.
    let _cut = socket.send(Message::binary(vec![0; 300 << 10])).await;
    assert_eq!(close(&mut socket).await, 1009);
    for bad in [
        r#"{"type":"signal","signal":65}"#,
        r#"{"type":"resize","size":{"cols":0,"rows":1}}"#,
        r#"{"type":"resize","size":[80,24]}"#,
        r#"{"type":"dance"}"#,
        "{",
    ] {
        let mut socket = exec(&served, "sleep").await;
        socket.send(Message::text(bad)).await.expect("sent");
        assert_eq!(close(&mut socket).await, 1002, "{bad}");
    }
}

#[tokio::test]
async fn a_tunnel_closes_each_way_by_itself() {
    let served = Served::start(8).await;
    let mut socket = open(&served, "/api/v1/workspaces/fix/ports/80").await.expect("a socket");
    socket.send(Message::binary(vec![5; 100_000])).await.expect("sent");
    // The end of our way; what was echoed still arrives, then the end of the other.
    socket.send(Message::binary(vec![])).await.expect("sent");
    let mut total = 0;
    loop {
        let data = next(&mut socket).await.into_data();
        if data.is_empty() {
            break;
        }
        total += data.len();
    }
    assert_eq!(total, 100_000);
    let Message::Close(Some(close)) = next(&mut socket).await else { panic!("no close") };
    assert_eq!(close.code, CloseCode::Normal);
}

#[tokio::test]
async fn a_watch_tells_events_and_ends() {
    let served = Served::start(8).await;
    let path = "/api/v1/workspaces/fix/files/watch?path=/a&recursive=true";
    let mut socket = open(&served, path).await.expect("a socket");
    let text = next(&mut socket).await.into_text().expect("text");
    assert_eq!(text.as_str(), r#"{"kind":"created","path":"a"}"#);
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
}

#[tokio::test]
async fn a_server_that_leaves_ends_calls_first_and_streams_last() {
    let mut served = Served::start(8).await;
    let mut socket = exec(&served, "echo").await;
    let streams = served.stop().await;
    // No more calls, but the stream is alive until the node has been closed.
    socket.send(Message::binary("still")).await.expect("sent");
    assert_eq!(next(&mut socket).await.into_data().as_ref(), b"\x01still");
    let ending = tokio::spawn(async move { streams.end().await });
    let Message::Close(Some(close)) = next(&mut socket).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1012);
    drop(socket);
    ending.await.expect("it ends");
}

#[tokio::test]
async fn a_stream_counts_as_activity() {
    let served = Served::start(8).await;
    tokio::time::pause();
    let socket = exec(&served, "sleep").await;
    let hour = std::time::Duration::from_hours(1);
    let idle = served.activity.idle_for(std::time::Duration::from_mins(1));
    assert!(tokio::time::timeout(hour, idle).await.is_err(), "idle with an open stream");
    drop(socket);
    let idle = served.activity.idle_for(std::time::Duration::from_mins(1));
    tokio::time::timeout(hour, idle).await.expect("idle after the stream");
}
