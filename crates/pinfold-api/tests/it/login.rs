//! Browsers: one link, one session, only for pages of this server, until it ends.

use pinfold_types::ErrorCode;
use serde_json::Value;

use crate::{
    server::{Answer, Served},
    web::{FAST, Web, header, link},
};

async fn audited(served: &Served, operation: &str) -> Vec<Value> {
    let records = served.call("GET", "/api/v1/audit?limit=1000").await;
    let records: Vec<Value> = serde_json::from_slice(&records.body).expect("records");
    records.into_iter().filter(|record| record["operation"] == operation).collect()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|err| panic!("{err}: {}", answer.text()))
}

#[tokio::test]
async fn a_link_signs_in_one_browser_once() {
    let served = Served::with(16, FAST).await;
    let web = Web::at(&served, "pinfold.localhost");
    let code = link(&served).await;
    for _ in 0..3 {
        let page = web.get(&format!("/login?code={code}")).await;
        assert_eq!(page.status, 200);
        assert!(page.text().contains(&format!("value=\"{code}\"")), "{}", page.text());
    }
    // A page of somebody else cannot sign this browser in as them.
    for headers in [
        "",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let foreign = web.form("/login", headers, &[("code", &code)]).await;
        assert_eq!(foreign.status, 403, "{headers:?}");
        assert!(header(&foreign, "set-cookie").is_none());
    }
    let done = web.submit("/login", &[("code", &code)]).await;
    assert_eq!((done.status, header(&done, "location")), (303, Some("/")), "{}", done.text());
    let cookie = header(&done, "set-cookie").expect("a cookie").to_owned();
    let name = format!("pinfold-{}=pf_web_", served.tcp.port());
    assert!(cookie.starts_with(&name), "{cookie}");
    assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    let again = web.submit("/login", &[("code", &code)]).await;
    assert_eq!(again.status, 401);
    assert!(header(&again, "set-cookie").is_none());
    let wrong = web.submit("/login", &[("code", "pf_login_x")]).await;
    let same = |text: String| text.replace(&code, "");
    assert_eq!(same(wrong.text()), same(again.text()), "reasons differ");

    let signed = Web { cookie: cookie.split(';').next().map(str::to_owned), ..web };
    let me = json(&signed.get("/api/v1/whoami").await);
    let owner: Value =
        serde_json::from_slice(&served.call("GET", "/api/v1/whoami").await.body).expect("JSON");
    assert_eq!((&me["principal"], &me["reach"]), (&owner["principal"], &"all".into()));
    let done = audited(&served, "login.done").await;
    assert_eq!(done.len(), 1);
    assert_eq!(
        (&done[0]["principal"], &done[0]["phase"]),
        (&owner["principal"], &"security".into())
    );
    assert_eq!(audited(&served, "login.failed").await.len(), 2);
    let all = served.call("GET", "/api/v1/audit?limit=1000").await.text();
    assert!(!all.contains(&code), "a code is in the audit log");
}

#[tokio::test]
async fn a_cookie_counts_for_pages_of_this_server_alone() {
    let served = Served::with(16, FAST).await;
    let web = Web::signed_in(&served).await;
    let own = format!("Origin: {}\r\n", web.origin());
    let ask = async |what: &str, headers: &str| web.send(what, headers, "").await.status;
    // Looking: from a page of ours, or from no page.
    assert_eq!(ask("GET /api/v1/whoami", "").await, 200);
    assert_eq!(ask("GET /api/v1/whoami", "Sec-Fetch-Site: none\r\n").await, 200);
    assert_eq!(ask("GET /api/v1/whoami", "Sec-Fetch-Site: same-origin\r\n").await, 200);
    for other in ["same-site", "cross-site"] {
        let headers = format!("Sec-Fetch-Site: {other}\r\n");
        assert_eq!(ask("GET /api/v1/whoami", &headers).await, 403, "{other}");
    }
    // Changing: a browser has to say that it is a page of ours.
    let change = "POST /api/v1/tickets";
    assert_eq!(ask(change, &own).await, 201);
    assert_eq!(ask(change, "Sec-Fetch-Site: same-origin\r\n").await, 201);
    for headers in [
        String::new(),
        "Sec-Fetch-Site: none\r\n".into(),
        "Sec-Fetch-Site: cross-site\r\n".into(),
        "Origin: null\r\n".into(),
        "Origin: https://evil.example\r\n".into(),
        format!("{own}Sec-Fetch-Site: same-site\r\n"),
        format!("Origin: http://localhost:{}\r\n", served.tcp.port()),
    ] {
        assert_eq!(ask(change, &headers).await, 403, "{headers:?}");
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let watch = "GET /api/v1/workspaces/fix/files/watch?path=/a";
    assert_eq!(ask(watch, upgrade).await, 403, "a WebSocket that names no page");
    // Not with another credential beside it, nor as one.
    let token = web.cookie.as_deref().and_then(|pair| pair.split_once('=')).expect("a pair").1;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask("GET /api/v1/whoami", &bearer).await, 401, "two credentials");
    let twice = format!("Cookie: {}\r\n", web.cookie.as_deref().expect("a cookie"));
    assert_eq!(ask("GET /api/v1/whoami", &twice).await, 401, "two cookies");
    // Not for MCP, and not on the unix socket.
    assert_eq!(ask("POST /mcp", &own).await, 401);
    let head = |more: &str| format!("GET /api/v1/whoami HTTP/1.1\r\n{more}");
    let unix = served.raw(head(&bearer).trim_end(), b"").await;
    assert_eq!(unix.status, 401);
    // Not under the names that other servers of this machine answer to.
    for name in ["localhost", "127.0.0.1", "other.localhost"] {
        let elsewhere = Web { cookie: web.cookie.clone(), ..Web::at(&served, name) };
        assert_eq!(elsewhere.get("/api/v1/whoami").await.status, 401, "{name}");
        let moved = elsewhere.get("/login?code=x").await;
        let there = format!("{}/login?code=x", web.origin());
        assert_eq!((moved.status, header(&moved, "location")), (303, Some(there.as_str())));
        assert_eq!(elsewhere.submit("/login", &[("code", "x")]).await.status, 403);
    }
}

#[tokio::test]
async fn signing_out_ends_one_session_or_all() {
    let served = Served::with(32, FAST).await;
    let [one, two, three] = [
        Web::signed_in(&served).await,
        Web::signed_in(&served).await,
        Web::signed_in(&served).await,
    ];
    let status = async |web: &Web<'_>| web.get("/api/v1/whoami").await.status;
    // Pages of others cannot sign anybody out.
    assert_eq!(one.form("/logout", "Origin: https://evil.example\r\n", &[]).await.status, 403);
    assert_eq!(one.form("/logout", "", &[]).await.status, 403);
    assert_eq!(status(&one).await, 200);
    let out = one.submit("/logout", &[("go", "out")]).await;
    assert_eq!(out.status, 200, "{}", out.text());
    let cleared = header(&out, "set-cookie").expect("the cookie is cleared");
    assert!(cleared.contains("Max-Age=0") && header(&out, "clear-site-data").is_some());
    assert_eq!((status(&one).await, status(&two).await), (401, 200));
    assert_eq!(two.submit("/logout", &[("everywhere", "yes")]).await.status, 200);
    assert_eq!((status(&two).await, status(&three).await), (401, 401));
    assert_eq!(audited(&served, "login.ended").await.len(), 2);

    let [four, five] = [Web::signed_in(&served).await, Web::signed_in(&served).await];
    let page = four.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Your browsers: 2"), "{}", page.text());
    let ended = served.call("DELETE", "/api/v1/logins").await;
    assert_eq!(json(&ended)["tokens"].as_array().expect("ids").len(), 2);
    assert_eq!((status(&four).await, status(&five).await), (401, 401));
    // Who is not signed in is shown the way in, and signing out of nothing does nothing.
    let page = four.get("/").await;
    assert_eq!(page.status, 303);
    assert_eq!(four.submit("/logout", &[("go", "out")]).await.status, 200);
}

#[tokio::test]
async fn a_session_ends_with_the_token_that_it_came_of() {
    let served = Served::with(16, FAST).await;
    let made = served.json(
        "POST",
        "/api/v1/tokens",
        r#"{"name":"laptop","scopes":["session:whoami","login:create"]}"#,
    );
    let made = json(&made.await);
    let bearer = format!("Authorization: Bearer {}\r\n", made["token"].as_str().expect("a token"));
    let mut web = Web::at(&served, "pinfold.localhost");
    let link = web.send("POST /api/v1/logins", &bearer, "").await;
    let url = json(&link)["url"].as_str().expect("a URL").to_owned();
    assert!(url.starts_with(&web.origin()), "{url}");
    let code = url.split_once("code=").expect("a code").1;
    let done = web.submit("/login", &[("code", code)]).await;
    web.cookie = Some(crate::web::set_cookie(&done));
    let me = json(&web.get("/api/v1/whoami").await);
    assert_eq!(me["scopes"], serde_json::json!(["login:create", "session:whoami"]));
    assert_eq!(web.get("/api/v1/workspaces").await.status, 403, "no more than the token");
    let end = served.call("DELETE", "/api/v1/tokens/laptop").await;
    assert_eq!(end.status, 200);
    assert_eq!(web.get("/api/v1/whoami").await.status, 401);
}

#[tokio::test]
async fn tries_to_sign_in_are_counted() {
    let served = Served::start(16).await;
    let web = Web::at(&served, "pinfold.localhost");
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(web.submit("/login", &[("code", "guess")]).await);
    }
    let limited = seen.iter().find(|answer| answer.status == 429).expect("a limit");
    assert!(header(limited, "retry-after").is_some(), "{}", limited.head);
    assert!(seen.iter().filter(|answer| answer.status == 401).count() >= 9);
    let token = web.form("/oauth/token", "", &[("grant_type", "refresh_token")]).await;
    assert_eq!(token.status, 429, "one bucket for all ways in");
    assert_eq!(json(&token)["error"], "temporarily_unavailable");
    assert!(header(&token, "retry-after").is_some());
}

#[tokio::test]
async fn pages_run_nothing_and_load_nothing_from_elsewhere() {
    let served = Served::with(16, FAST).await;
    let web = Web::signed_in(&served).await;
    for path in ["/", "/login", "/login?code=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"] {
        let page = web.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = header(&page, "content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; form-action 'self'"));
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(header(&page, "referrer-policy"), Some("same-origin"));
        assert_eq!(header(&page, "cache-control"), Some("no-store"));
        assert_eq!(header(&page, "x-frame-options"), Some("DENY"));
        let text = page.text();
        assert!(!text.contains("<script") && !text.contains("style=") && !text.contains("pf_web_"));
    }
    assert_eq!(web.get("/login/page.css").await.status, 200);
    // Nobody on the unix socket is unknown.
    for path in ["/", "/login", "/oauth/authorize", "/.well-known/oauth-authorization-server"] {
        let answer = served.call("GET", path).await;
        assert_eq!(answer.problem().code, ErrorCode::NotFound, "{path}");
    }
}

#[tokio::test]
async fn nothing_else_is_open() {
    let served = Served::with(64, FAST).await;
    let web = Web::at(&served, "localhost");
    for (method, path, why) in pinfold_api::OPEN {
        let answer = web.send(&format!("{method} {path}"), "", "").await;
        assert!(![401, 404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
        assert!(why.len() > 5);
    }
    for path in ["/nowhere", "/oauth", "/oauth/nowhere", "/login/nowhere", "/api/docs"] {
        assert_eq!(web.get(path).await.status, 401, "{path}");
    }
}
