//! Callers over TCP with a credential: what they open, and what is refused them.

use futures_util::{SinkExt, StreamExt};
use pinfold_types::api::ExecOutput;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::server::{Answer, Served};

type Socket = WebSocketStream<TcpStream>;

const EXEC: &str = "/api/v1/workspaces/fix/exec";

/// A token of everything, made by the owner.
async fn token(served: &Served) -> String {
    let made = served.json("POST", "/api/v1/tokens", r#"{"name":"agent","reach":"all"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made: serde_json::Value = serde_json::from_slice(&made.body).expect("JSON");
    made["token"].as_str().expect("a token").to_owned()
}

async fn ticket(served: &Served, token: &str, origin: Option<&str>) -> Answer {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /api/v1/tickets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         {origin}Connection: close\r\n\r\n"
    );
    served.over_tcp(&request).await
}

fn text_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(made["expires_in_ms"], 30_000);
    made["ticket"].as_str().expect("a ticket").to_owned()
}

/// Opens a WebSocket with these headers; the refusal's status otherwise.
async fn open(
    served: &Served,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, u16> {
    let stream = TcpStream::connect(served.tcp).await.expect("the server listens");
    let url = format!("ws://localhost:{}{path}", served.tcp.port());
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header"));
    }
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    socket.next().await.expect("a message").expect("a good one")
}

#[tokio::test]
async fn a_token_calls_and_streams_over_tcp() {
    let served = Served::start(8).await;
    let token = token(&served).await;
    let bearer = format!("Bearer {token}");
    let request = format!(
        "GET /api/v1/server HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\
         Connection: close\r\n\r\n"
    );
    assert_eq!(served.over_tcp(&request).await.status, 200);
    let mut socket =
        open(&served, EXEC, &[("authorization", &bearer)]).await.expect("it has a token");
    let spec = r#"{"command":{"argv":["echo"]},"stdin":true,"tty":{"cols":80,"rows":24}}"#;
    socket.send(Message::text(spec)).await.expect("the request");
    let started = next(&mut socket).await.into_text().expect("text");
    assert!(
        matches!(serde_json::from_str(&started), Ok(ExecOutput::Started { .. })),
        "a terminal on this machine: {started}"
    );
    socket.send(Message::binary("over TCP")).await.expect("sent");
    assert_eq!(next(&mut socket).await.into_data().as_ref(), b"\x01over TCP");
}

#[tokio::test]
async fn no_stream_without_a_credential_that_stands() {
    let served = Served::start(8).await;
    let token = token(&served).await;
    let bearer = format!("Bearer {token}");
    let wrong = format!("{bearer}x");
    let own = format!("http://localhost:{}", served.tcp.port());
    for (expected, headers) in [
        (401, &[][..]),
        (401, &[("authorization", wrong.as_str())]),
        (401, &[("cookie", "a=b"), ("origin", own.as_str())]),
        // Hijacking: a page elsewhere, and a browser that adds what it has.
        (403, &[("authorization", bearer.as_str()), ("origin", "https://evil.example")]),
        (403, &[("cookie", "a=b"), ("origin", "https://evil.example")]),
        (403, &[("authorization", bearer.as_str()), ("origin", "null")]),
    ] {
        assert_eq!(open(&served, EXEC, headers).await.err(), Some(expected), "{headers:?}");
    }
    let allowed = [("authorization", bearer.as_str()), ("origin", own.as_str())];
    assert!(open(&served, EXEC, &allowed).await.is_ok());
}

#[tokio::test]
async fn a_ticket_opens_one_stream_for_the_page_that_asked() {
    let served = Served::with(8, "[server]\norigins = [\"https://app.example\"]").await;
    let token = token(&served).await;
    let page = Some("https://app.example");
    let with = |ticket: &str| format!("{EXEC}?ticket={ticket}");

    let first = text_of(&ticket(&served, &token, page).await);
    let origin = [("origin", "https://app.example")];
    assert!(open(&served, &with(&first), &origin).await.is_ok());
    assert_eq!(open(&served, &with(&first), &origin).await.err(), Some(401), "a second time");

    let other = text_of(&ticket(&served, &token, page).await);
    let own = format!("http://localhost:{}", served.tcp.port());
    let refused = open(&served, &with(&other), &[("origin", &own)]).await;
    assert_eq!(refused.err(), Some(401), "another page");
    let foreign = text_of(&ticket(&served, &token, None).await);
    let refused = open(&served, &with(&foreign), &[("origin", "https://evil.example")]).await;
    assert_eq!(refused.err(), Some(403), "a page that may not");
    assert!(open(&served, &with(&foreign), &[]).await.is_ok(), "a program's own");

    // Not a way to make calls, nor to make more of itself.
    let last = text_of(&ticket(&served, &token, None).await);
    let request = format!(
        "GET /api/v1/server?ticket={last} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(served.over_tcp(&request).await.status, 401);
    let both = [("authorization", "Bearer x")];
    assert_eq!(open(&served, &with(&last), &both).await.err(), Some(401), "two credentials");
    assert_eq!(ticket(&served, "x", None).await.status, 401);
}

#[tokio::test]
async fn streams_of_one_principal_are_counted() {
    let served = Served::with(8, "[streams]\nmax_per_principal = 2").await;
    let token = token(&served).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let first = open(&served, EXEC, &headers).await.expect("the first");
    let _second = open(&served, EXEC, &headers).await.expect("the second");
    assert_eq!(open(&served, EXEC, &headers).await.err(), Some(429), "the third");
    drop(first);
    // The server notices by itself that the first has gone.
    let again = async {
        while open(&served, EXEC, &headers).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("room again");
}

#[tokio::test]
async fn old_and_silent_streams_are_closed_with_the_reason() {
    for (config, reason) in [
        ("[streams]\nidle_ms = 200", "streams.idle_ms (200)"),
        ("[streams]\nmax_age_ms = 200", "streams.max_age_ms (200)"),
    ] {
        let served = Served::with(8, config).await;
        let token = token(&served).await;
        let bearer = format!("Bearer {token}");
        let mut socket =
            open(&served, EXEC, &[("authorization", &bearer)]).await.expect("a socket");
        let spec = r#"{"command":{"argv":["sleep"]},"stdin":true}"#;
        socket.send(Message::text(spec)).await.expect("the request");
        let close = loop {
            match next(&mut socket).await {
                Message::Close(Some(close)) => break close,
                Message::Close(None) => panic!("no reason"),
                _ => {}
            }
        };
        assert_eq!(u16::from(close.code), 1013, "{config}");
        assert!(close.reason.contains(reason), "{config}: {}", close.reason);
    }
}

#[tokio::test]
async fn a_flood_of_empty_frames_ends_the_stream() {
    let served = Served::start(8).await;
    let token = token(&served).await;
    let bearer = format!("Bearer {token}");
    let mut socket = open(&served, EXEC, &[("authorization", &bearer)]).await.expect("a socket");
    let spec = r#"{"command":{"argv":["sleep"]},"stdin":true}"#;
    socket.send(Message::text(spec)).await.expect("the request");
    let flood = pinfold_api::ws::MAX_EMPTY_PER_SECOND * 20;
    for _ in 0..flood {
        if socket.send(Message::Ping(vec![].into())).await.is_err() {
            break;
        }
    }
    let code = loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => break u16::from(close.code),
            Some(Ok(_)) => {}
            other => panic!("no close: {other:?}"),
        }
    };
    assert_eq!(code, 1008);
}
