//! Signing in, by the real programs over TCP: a link of the command line, a cookie, a client of MCP
//! that a person lets in, and all of it after `kill -9`.

mod browser;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Server, ServerOptions};

use browser::{Answer, Browser, field, form};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn server() -> Server {
    Server::with(ServerOptions { listen: vec!["127.0.0.1:0".into()], ..ServerOptions::default() })
}

/// A browser that opens the link of `pinfold login`.
fn signed_in(server: &Server) -> Browser {
    let link = server.pinfold(&["login", "--json"]).json();
    let url = link["url"].as_str().expect("a URL").to_owned();
    let mut browser = Browser::at(address(server), "pinfold.localhost");
    let path = url.strip_prefix(&browser.origin()).expect("this server, by its own name");
    let page = browser.get(path);
    assert_eq!(page.status, 200, "{}", page.body);
    let code = path.strip_prefix("/login?code=").expect("a code");
    let done = browser.submit("/login", &[("code", code)]);
    assert_eq!(done.status, 303, "{}", done.body);
    let cookie = done.header("set-cookie").expect("a cookie");
    browser.cookie = cookie.split(';').next().map(str::to_owned);
    browser
}

fn address(server: &Server) -> std::net::SocketAddr {
    testkit::until("a TCP address", Duration::from_secs(30), || {
        let last = server.tcp().last().copied()?;
        std::net::TcpStream::connect(last).is_ok().then_some(last)
    })
}

fn mcp(app: &Browser, token: &str) -> Answer {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}}});
    let headers = format!(
        "Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n"
    );
    app.send("POST /mcp", &headers, &hello.to_string())
}

fn token(app: &Browser, fields: &[(&str, &str)]) -> Answer {
    app.post("/oauth/token", "", fields)
}

#[test]
fn a_person_lets_a_client_in_and_all_of_it_outlives_a_crash() {
    let mut server = server();
    let person = signed_in(&server);
    assert_eq!(person.get("/api/v1/whoami").json()["reach"], "all");
    let app = Browser::at(address(&server), "127.0.0.1");

    // What a client is told when it comes without a token leads it to everything else.
    let refused = mcp(&app, "");
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").expect("a challenge").to_owned();
    let (_, url) = challenge.split_once("resource_metadata=\"").expect("the metadata");
    let url = url.split('"').next().expect("a URL");
    let resource = app.get(url.strip_prefix(&app.origin()).expect("this server")).json();
    let issuer = resource["authorization_servers"][0].as_str().expect("an issuer").to_owned();
    assert_eq!(issuer, app.origin());
    let about = app.get("/.well-known/oauth-authorization-server").json();
    let at = |name: &str| {
        let url = about[name].as_str().expect("an endpoint");
        url.strip_prefix(&app.origin()).expect("this server").to_owned()
    };
    let body = json!({"client_name": "Test", "redirect_uris": ["http://127.0.0.1/cb"]});
    let kind = "Content-Type: application/json\r\n";
    let client =
        app.send(&format!("POST {}", at("registration_endpoint")), kind, &body.to_string());
    let client = client.json()["client_id"].as_str().expect("an id").to_owned();
    let query = form(&[
        ("response_type", "code"),
        ("client_id", &client),
        ("redirect_uri", "http://127.0.0.1:50000/cb"),
        ("state", "s"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("resource", resource["resource"].as_str().expect("a resource")),
    ]);
    let first = app.get(&format!("{}?{query}", at("authorization_endpoint")));
    let second = first.header("location").expect("where browsers are signed in").to_owned();
    let step = person.get(second.strip_prefix(&person.origin()).expect("this server"));
    let next = step.between("content=\"0;url=", "\"").replace("&amp;", "&");
    let page = person.get(next.strip_prefix(&person.origin()).expect("this server"));
    let number = page.between("name=\"page\" value=\"", "\"");
    let fields = [("page", number.as_str()), ("answer", "approve")];
    let back = person.submit("/oauth/consent", &fields);
    let back = back.header("location").expect("back to the client").to_owned();
    assert!(back.starts_with("http://127.0.0.1:50000/cb?code="), "{back}");
    assert_eq!(field(&back, "iss"), issuer);
    let code = field(&back, "code");
    let shown = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let given = token(&app, &shown).json();
    let text = |given: &Value, name: &str| given[name].as_str().expect("a token").to_owned();
    let access = text(&given, "access_token");
    let hello = mcp(&app, &access);
    assert_eq!(hello.status, 200, "{}", hello.body);
    assert!(hello.body.contains("serverInfo"), "{}", hello.body);
    let bearer = format!("Authorization: Bearer {access}\r\n");
    assert_eq!(app.send("GET /api/v1/whoami", &bearer, "").status, 401, "and nothing else");

    server.kill();
    server.start_again();
    let app = Browser::at(address(&server), "127.0.0.1");
    let person = Browser {
        cookie: person.cookie.clone(),
        ..Browser::at(address(&server), "pinfold.localhost")
    };
    // The port is another one now, and with it the cookie's name: a person signs in anew.
    assert_eq!(person.get("/api/v1/whoami").status, 401);
    assert_eq!(mcp(&app, &access).status, 200, "the access token stands");
    let refresh = text(&given, "refresh_token");
    let renew = |refresh: &str| {
        let fields =
            [("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", refresh)];
        token(&app, &fields)
    };
    let next = renew(&refresh).json();
    assert_eq!(mcp(&app, &text(&next, "access_token")).status, 200);
    assert_eq!(renew(&refresh).status, 400, "it was used");
    assert_eq!(mcp(&app, &text(&next, "access_token")).status, 401, "so the grant has ended");
    assert_eq!(renew(&text(&next, "refresh_token")).status, 400);

    let person = signed_in(&server);
    let list = server.pinfold(&["token", "ls"]).ok();
    assert!(list.contains("mcp-test") && list.contains("browser"), "{list}");
    let ended = server.pinfold(&["logout"]).ok();
    assert_eq!(ended, "2 browsers signed out\n");
    assert_eq!(person.get("/api/v1/whoami").status, 401);
    let kept = server.printed();
    for secret in [code, access, refresh] {
        assert!(!kept.contains(&secret), "a credential was printed");
    }
    server.stop();
}
