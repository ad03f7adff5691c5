//! Names, origins and Fetch Metadata, case by case. A request that passes gets 401 here: it has no
//! credential. Everything else is refused before anybody asks for one.

use crate::server::Served;

const CONFIG: &str = r#"
[server]
origins = ["https://app.example", "http://localhost:5173"]
hosts = ["pinfold.example"]
"#;

const GET: &str = "GET /api/v1/server";
const POST: &str = "POST /api/v1/workspaces";
const SOCKET: &str = "GET /api/v1/workspaces/fix/exec";
const UPGRADE: &str = "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// Sends a request line with these headers; `PORT` in them is the server's.
async fn status(served: &Served, line: &str, headers: &[&str]) -> (u16, String) {
    let mut request = format!("{line} HTTP/1.1\r\n");
    for header in headers {
        request.push_str(&header.replace("PORT", &served.tcp.port().to_string()));
        request.push_str("\r\n");
    }
    if !headers.iter().any(|header| header.starts_with("Connection:")) {
        request.push_str("Connection: close\r\n");
    }
    let answer = served.over_tcp(&format!("{request}\r\n")).await;
    (answer.status, answer.head)
}

#[tokio::test]
async fn only_its_own_names_are_answered() {
    let served = Served::with(8, CONFIG).await;
    for (expected, headers) in [
        (401, &["Host: localhost"][..]),
        (401, &["Host: LocalHost:1"]),
        (401, &["Host: localhost:PORT"]),
        (401, &["Host: pinfold.localhost"]),
        (401, &["Host: 127.0.0.1:PORT"]),
        (401, &["Host: 127.0.0.2"]),
        (401, &["Host: [::1]:PORT"]),
        (401, &["Host: [::ffff:127.0.0.1]"]),
        (401, &["Host: pinfold.example"]),
        (401, &["Host: PINFOLD.example:443"]),
        // Rebinding: the attacker's name resolves to us.
        (403, &["Host: evil.example"]),
        (403, &["Host: evil.example:PORT"]),
        (403, &["Host: localhost.evil.example"]),
        (403, &["Host: evil-localhost"]),
        (403, &["Host: x.pinfold.example"]),
        (403, &["Host: 10.0.0.1"]),
        (403, &["Host: 0.0.0.0"]),
        (403, &["Host: [::]"]),
        // Not a host at all, or two.
        (400, &["X-None: 1"]),
        (400, &["Host:"]),
        (400, &["Host: localhost", "Host: localhost"]),
        (400, &["Host: localhost", "Host: evil.example"]),
        (400, &["Host: localhost,evil.example"]),
        (400, &["Host: localhost@evil.example"]),
        (400, &["Host: localhost:x"]),
        (400, &["Host: localhost:0"]),
        (400, &["Host: 127.1"]),
        (400, &["Host: 2130706433"]),
        (400, &["Host: localhost."]),
        (400, &["Host: *"]),
        // What a proxy may say of another host is not asked.
        (403, &["Host: evil.example", "X-Forwarded-Host: localhost"]),
        (403, &["Host: evil.example", "Forwarded: host=localhost"]),
    ] {
        let (found, head) = status(&served, GET, headers).await;
        assert_eq!(found, expected, "{headers:?}: {head}");
    }
    for (expected, line) in [
        (401, "GET http://localhost/api/v1/server"),
        (400, "GET http://evil.example/api/v1/server"),
    ] {
        let (found, head) = status(&served, line, &["Host: localhost"]).await;
        assert_eq!(found, expected, "{line}: {head}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_can_neither_write_nor_open_sockets() {
    let served = Served::with(8, CONFIG).await;
    let cases = [
        // Programs.
        (true, &[][..]),
        // Our own pages.
        (true, &["Origin: http://localhost:PORT"]),
        (true, &["Origin: http://localhost:PORT", "Sec-Fetch-Site: same-origin"]),
        (true, &["Sec-Fetch-Site: same-origin"]),
        // Pages that the configuration names.
        (true, &["Origin: https://app.example", "Sec-Fetch-Site: cross-site"]),
        (true, &["Origin: http://localhost:5173", "Sec-Fetch-Site: same-site"]),
        // All others: also those beside us on the same machine, at another port or scheme.
        (false, &["Origin: https://evil.example"]),
        (false, &["Origin: https://evil.example", "Sec-Fetch-Site: same-origin"]),
        (false, &["Origin: http://localhost"]),
        (false, &["Origin: http://localhost:3000"]),
        (false, &["Origin: https://localhost:PORT"]),
        (false, &["Origin: http://127.0.0.1:PORT"]),
        (false, &["Origin: http://app.example"]),
        (false, &["Origin: https://app.example:8443"]),
        (false, &["Origin: https://app.example.evil.example"]),
        (false, &["Origin: https://x.app.example"]),
        (false, &["Origin: https://app.example/"]),
        (false, &["Origin: null"]),
        (false, &["Origin: "]),
        (false, &["Origin: *"]),
        (false, &["Origin: https://app.example", "Origin: https://evil.example"]),
        (false, &["Sec-Fetch-Site: cross-site"]),
        (false, &["Sec-Fetch-Site: same-site"]),
        (false, &["Sec-Fetch-Site: none"]),
        (false, &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"]),
        (false, &["Origin: http://localhost:PORT", "Sec-Fetch-Site: cross-site"]),
    ];
    for (passes, headers) in cases {
        let with = |more: &[&'static str]| [&["Host: localhost:PORT"], more, headers].concat();
        let expected = if passes { 401 } else { 403 };
        for line in [POST, "PUT /x", "PATCH /x", "DELETE /api/v1/workspaces/fix"] {
            let (found, head) = status(&served, line, &with(&[])).await;
            assert_eq!(found, expected, "{line} {headers:?}: {head}");
        }
        let (found, head) = status(&served, SOCKET, &with(&[UPGRADE])).await;
        assert_eq!(found, expected, "socket {headers:?}: {head}");
        // What only reads is answered; whether the page sees it is for its browser to say.
        let (found, head) = status(&served, GET, &with(&[])).await;
        assert_eq!(found, 401, "read {headers:?}: {head}");
    }
}

#[tokio::test]
async fn a_socket_with_a_cookie_names_its_page() {
    let served = Served::with(8, CONFIG).await;
    let cookie = "Cookie: __Host-pinfold=x";
    for (expected, origin) in [(403, None), (401, Some("Origin: http://localhost:PORT"))] {
        let mut headers = vec!["Host: localhost:PORT", UPGRADE, cookie];
        headers.extend(origin);
        assert_eq!(status(&served, SOCKET, &headers).await.0, expected, "{origin:?}");
    }
}

#[tokio::test]
async fn answers_are_readable_for_configured_origins_alone() {
    let served = Served::with(8, CONFIG).await;
    for (origin, readable) in [
        ("https://app.example", true),
        ("http://localhost:5173", true),
        ("http://localhost:PORT", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let origin_header = format!("Origin: {origin}");
        let (_, head) = status(&served, GET, &["Host: localhost:PORT", &origin_header]).await;
        assert!(head.contains("vary: origin"), "{head}");
        assert!(!head.contains("access-control-allow-credentials"), "{head}");
        let says = format!("access-control-allow-origin: {origin}");
        assert_eq!(head.contains("access-control-allow-origin"), readable, "{origin}: {head}");
        assert_eq!(head.contains(&says), readable, "{origin}: {head}");

        let asks = ["Host: localhost:PORT", &origin_header, "Access-Control-Request-Method: POST"];
        let (found, head) = status(&served, "OPTIONS /api/v1/workspaces", &asks).await;
        assert_eq!(found, if readable { 204 } else { 403 }, "{origin}: {head}");
        assert_eq!(head.contains("access-control-allow-methods"), readable, "{origin}: {head}");
        assert!(head.contains("vary: origin"), "{head}");
    }
}

#[tokio::test]
async fn no_page_is_let_in_on_the_unix_socket() {
    let served = Served::with(8, CONFIG).await;
    for header in ["Origin: https://app.example", "Sec-Fetch-Site: same-origin", "Origin: null"] {
        for line in ["GET /api/v1/server HTTP/1.1", "POST /api/v1/images/prune HTTP/1.1"] {
            let answer = served.raw(&format!("{line}\r\n{header}"), b"").await;
            assert_eq!(answer.status, 403, "{line} {header}");
        }
    }
}
