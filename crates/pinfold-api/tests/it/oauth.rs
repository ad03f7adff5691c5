//! The authorization server, and each attack on it that is known.

use serde_json::Value;

use crate::{
    server::{Answer, Served},
    web::{FAST, Web, header},
};

/// A verifier and its challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const BACK: &str = "http://127.0.0.1:1/cb";

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|err| panic!("{err}: {}", answer.text()))
}

/// A client of the server, which knows it as `localhost`.
struct App<'a> {
    web: Web<'a>,
    id: String,
}

impl<'a> App<'a> {
    async fn registered(served: &'a Served) -> Self {
        let web = Web::at(served, "localhost");
        let body = format!(r#"{{"client_name":"<b>App</b>","redirect_uris":["{BACK}"]}}"#);
        let kind = "Content-Type: application/json\r\n";
        let made = web.send("POST /oauth/register", kind, &body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = json(&made);
        assert_eq!(made["token_endpoint_auth_method"], "none");
        Self { web, id: made["client_id"].as_str().expect("an id").to_owned() }
    }

    fn resource(&self) -> String {
        format!("{}/mcp", self.web.origin())
    }

    /// The query of a request, with changes; an empty value leaves a field out.
    fn query(&self, changes: &[(&str, &str)]) -> String {
        let resource = self.resource();
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", self.id.as_str()),
            ("redirect_uri", BACK),
            ("state", "s1"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("resource", resource.as_str()),
            ("scope", "workspace:read exec:run token:create openid"),
        ];
        for (name, value) in changes {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        fields.iter().filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| {
            query.append_pair(name, value);
        });
        query.finish()
    }

    async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        self.web.form("/oauth/token", "", fields).await
    }

    async fn exchange(&self, code: &str) -> Answer {
        self.exchange_with(code, &[]).await
    }

    async fn exchange_with(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let resource = self.resource();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("client_id", self.id.as_str()),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", BACK),
            ("resource", resource.as_str()),
        ];
        for (name, value) in changes {
            if let Some(field) = fields.iter_mut().find(|(known, _)| known == name) {
                field.1 = value;
            }
        }
        fields.retain(|(_, value)| !value.is_empty());
        self.token(&fields).await
    }

    async fn refresh(&self, token: &str, more: &[(&str, &str)]) -> Answer {
        let mut fields = vec![
            ("grant_type", "refresh_token"),
            ("client_id", self.id.as_str()),
            ("refresh_token", token),
        ];
        fields.extend(more);
        self.token(&fields).await
    }

    /// Whether this access token opens MCP: the messages themselves are served elsewhere.
    async fn opens_mcp(&self, token: &str) -> bool {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let answer = self.web.send("POST /mcp", &bearer, "").await;
        assert!([401, 503].contains(&answer.status), "{}", answer.text());
        answer.status == 503
    }
}

/// Where a browser is sent, in its steps: `location` of the answer.
fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text());
    header(answer, "location").expect("a location").to_owned()
}

fn field(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let mut fields = url::form_urlencoded::parse(query.as_bytes());
    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The page's number, out of its form.
fn number(page: &Answer) -> String {
    let text = page.text();
    let (_, after) = text.split_once("name=\"page\" value=\"").unwrap_or_else(|| panic!("{text}"));
    after.split('"').next().expect("a value").to_owned()
}

/// The consent page for a request, by way of every step that a browser goes.
async fn consent_page(person: &Web<'_>, app: &App<'_>, changes: &[(&str, &str)]) -> Answer {
    let first = app.web.get(&format!("/oauth/authorize?{}", app.query(changes))).await;
    let second = location(&first);
    let path = second.strip_prefix(&person.origin()).expect("where browsers are signed in");
    // A page of the client's brought it here: no cookie comes along.
    let stranger = Web::at_host(person);
    let step = stranger.send(&format!("GET {path}"), "Sec-Fetch-Site: cross-site\r\n", "").await;
    assert_eq!(step.status, 200, "{}", step.text());
    let text = step.text();
    let (_, after) = text.split_once("content=\"0;url=").expect("it goes on");
    let next = after.split('"').next().expect("a value").replace("&amp;", "&");
    let path = next.strip_prefix(&person.origin()).expect("the same place");
    person.get(path).await
}

async fn code(person: &Web<'_>, app: &App<'_>) -> String {
    let page = consent_page(person, app, &[]).await;
    let fields = [("page", number(&page)), ("answer", "approve".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let to = location(&person.submit("/oauth/consent", &fields).await);
    field(&to, "code").unwrap_or_else(|| panic!("no code: {to}"))
}

async fn tokens(person: &Web<'_>, app: &App<'_>) -> (String, String) {
    let answer = app.exchange(&code(person, app).await).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    pair(&answer)
}

fn pair(answer: &Answer) -> (String, String) {
    let given = json(answer);
    let text = |name: &str| given[name].as_str().expect("a token").to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn audited(served: &Served, operation: &str) -> usize {
    let records = served.call("GET", "/api/v1/audit?limit=1000").await;
    let records: Vec<Value> = serde_json::from_slice(&records.body).expect("records");
    records.iter().filter(|record| record["operation"] == operation).count()
}

#[tokio::test]
async fn a_client_is_let_in_by_a_person_and_opens_mcp_alone() {
    let served = Served::with(64, FAST).await;
    let person = Web::signed_in(&served).await;
    let app = App::registered(&served).await;
    let issuer = app.web.origin();
    let resource = json(&app.web.get("/.well-known/oauth-protected-resource/mcp").await);
    assert_eq!(resource["resource"], app.resource());
    assert_eq!(resource["authorization_servers"], serde_json::json!([issuer]));
    let metadata = json(&app.web.get("/.well-known/oauth-authorization-server").await);
    assert_eq!(metadata["issuer"], issuer);
    assert_eq!(metadata["code_challenge_methods_supported"], serde_json::json!(["S256"]));
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);

    let page = consent_page(&person, &app, &[]).await;
    assert_eq!(page.status, 200);
    let text = page.text();
    assert!(text.contains("&lt;b&gt;App&lt;/b&gt;") && !text.contains("<b>"), "{text}");
    assert!(text.contains("a program on this computer (127.0.0.1)"), "{text}");
    assert!(text.contains("workspace (") && !text.contains("token ("), "{text}");
    let policy = header(&page, "content-security-policy").expect("a policy");
    assert!(policy.contains("form-action 'self' http://127.0.0.1:1;"), "{policy}");
    let number = number(&page);
    let fields = [("page", number.as_str()), ("answer", "approve")];
    let to = location(&person.submit("/oauth/consent", &fields).await);
    assert!(to.starts_with(&format!("{BACK}?code=pf_code_")), "{to}");
    assert_eq!(field(&to, "state").as_deref(), Some("s1"));
    assert_eq!(field(&to, "iss").as_deref(), Some(issuer.as_str()), "RFC 9207");
    let answer = app.exchange(&field(&to, "code").expect("a code")).await;
    assert_eq!((answer.status, header(&answer, "cache-control")), (200, Some("no-store")));
    let given = json(&answer);
    assert_eq!((&given["token_type"], &given["expires_in"]), (&"Bearer".into(), &600.into()));
    assert_eq!(given["scope"], "exec:run workspace:read", "nothing that makes credentials");

    let (access, refresh) = pair(&answer);
    assert!(app.opens_mcp(&access).await);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for token in [&access, &refresh] {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        for (what, more) in [
            ("GET /api/v1/whoami", ""),
            ("POST /api/v1/tokens", ""),
            ("POST /api/v1/tickets", ""),
            ("GET /api/v1/workspaces/fix/exec", upgrade),
            ("GET /api/v1/mcp", upgrade),
            ("GET /api/v1/events", ""),
        ] {
            let answer = app.web.send(what, &format!("{bearer}{more}"), "").await;
            assert_eq!(answer.status, 401, "{what}");
        }
        let unix = format!("GET /api/v1/whoami HTTP/1.1\r\n{}", bearer.trim_end());
        assert_eq!(served.raw(&unix, b"").await.status, 401);
        let name = person.cookie.as_deref().and_then(|pair| pair.split('=').next());
        let cookie = format!("{}={token}", name.expect("a name"));
        let browser = Web { cookie: Some(cookie), ..Web::at_host(&person) };
        assert_eq!(browser.get("/api/v1/whoami").await.status, 401, "as a cookie");
    }
    assert!(!app.opens_mcp(&refresh).await, "a refresh token opens nothing");
    for event in ["oauth.registered", "oauth.consented", "oauth.issued"] {
        assert_eq!(audited(&served, event).await, 1, "{event}");
    }
    let list = served.call("GET", "/api/v1/tokens").await;
    let list = json(&list);
    let of = |class: &str| {
        let all = list["items"].as_array().expect("tokens");
        all.iter().find(|info| info["class"] == class).expect("listed").clone()
    };
    assert_eq!(of("refresh")["client"], "<b>App</b>, a program on this computer (127.0.0.1)");
    let id = of("refresh")["id"].as_str().expect("an id").to_owned();
    assert_eq!(served.call("DELETE", &format!("/api/v1/tokens/{id}")).await.status, 200);
    assert!(!app.opens_mcp(&access).await, "a grant takes its tokens along");
    assert_eq!(app.refresh(&refresh, &[]).await.status, 400);
}

#[tokio::test]
async fn a_code_is_good_once_and_for_whoever_asked() {
    let served = Served::with(64, FAST).await;
    let person = Web::signed_in(&served).await;
    let app = App::registered(&served).await;
    let other = App::registered(&served).await;
    // Each burns the code, also for who asked.
    for (changes, error) in [
        (vec![("client_id", other.id.as_str())], "invalid_grant"),
        (vec![("redirect_uri", "http://127.0.0.1:2/cb")], "invalid_grant"),
        (vec![("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXX")], "invalid_grant"),
        (vec![("code_verifier", "")], "invalid_grant"),
        (vec![("code_verifier", CHALLENGE)], "invalid_grant"),
        (vec![("resource", "https://other.example/mcp")], "invalid_target"),
    ] {
        let code = code(&person, &app).await;
        let refused = app.exchange_with(&code, &changes).await;
        assert_eq!((refused.status, &json(&refused)["error"]), (400, &error.into()), "{changes:?}");
        assert_eq!(app.exchange(&code).await.status, 400, "{changes:?}");
    }
    let code = code(&person, &app).await;
    let (access, refresh) = pair(&app.exchange(&code).await);
    assert!(app.opens_mcp(&access).await);
    let again = app.exchange(&code).await;
    assert_eq!(json(&again)["error"], "invalid_grant");
    assert!(!app.opens_mcp(&access).await, "what it gave has ended");
    assert_eq!(app.refresh(&refresh, &[]).await.status, 400);
    assert_eq!(audited(&served, "oauth.reused").await, 1);
    for (fields, error) in [
        (
            vec![("grant_type", "password"), ("client_id", app.id.as_str())],
            "unsupported_grant_type",
        ),
        (vec![("grant_type", "authorization_code")], "invalid_client"),
        (vec![("grant_type", "a"), ("grant_type", "b")], "invalid_request"),
    ] {
        assert_eq!(json(&app.token(&fields).await)["error"], error);
    }
}

#[tokio::test]
async fn a_refresh_token_that_was_used_ends_the_grant() {
    let served = Served::with(64, FAST).await;
    let person = Web::signed_in(&served).await;
    let app = App::registered(&served).await;
    let (_, first) = tokens(&person, &app).await;
    let mut last = first.clone();
    let mut access = String::new();
    for _ in 0..3 {
        let answer = app.refresh(&last, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (next, refresh) = pair(&answer);
        assert_ne!(refresh, last);
        (access, last) = (next, refresh);
    }
    assert!(app.opens_mcp(&access).await);
    let other = App::registered(&served).await;
    assert_eq!(other.refresh(&last, &[]).await.status, 400, "of another client");
    let wider = app.refresh(&last, &[("scope", "files:write")]).await;
    assert_eq!(json(&wider)["error"], "invalid_scope");
    let narrower = app.refresh(&last, &[("scope", "workspace:read")]).await;
    assert_eq!(json(&narrower)["scope"], "workspace:read");
    let (_, last) = pair(&narrower);
    assert_eq!(app.refresh(&first, &[]).await.status, 400, "the very first one");
    assert!(!app.opens_mcp(&access).await);
    assert_eq!(app.refresh(&last, &[]).await.status, 400, "and the last one with it");
    assert_eq!(audited(&served, "oauth.reused").await, 1);
    // A client gives back what it has, and nobody else's.
    let (access, refresh) = tokens(&person, &app).await;
    let give = async |app: &App<'_>, token: &str| {
        let fields = [("token", token), ("client_id", app.id.as_str())];
        app.web.form("/oauth/revoke", "", &fields).await.status
    };
    assert_eq!((give(&other, &refresh).await, give(&app, "x").await), (200, 200));
    assert!(app.opens_mcp(&access).await);
    assert_eq!(give(&app, &access).await, 200);
    assert!(!app.opens_mcp(&access).await);
    let (access, refresh) = pair(&app.refresh(&refresh, &[]).await);
    assert_eq!(give(&app, &refresh).await, 200);
    assert!(!app.opens_mcp(&access).await);
}

#[tokio::test]
async fn nobody_is_sent_where_a_client_did_not_say() {
    let served = Served::with(64, FAST).await;
    let person = Web::signed_in(&served).await;
    let app = App::registered(&served).await;
    let ask = async |changes: &[(&str, &str)]| {
        let path =
            location(&app.web.get(&format!("/oauth/authorize?{}", app.query(changes))).await);
        person.get(path.strip_prefix(&person.origin()).expect("here")).await
    };
    for changes in [
        [("redirect_uri", "https://evil.example/cb")],
        [("redirect_uri", "http://127.0.0.1:1/cb2")],
        [("redirect_uri", "http://127.0.0.1:1/cb?x=1")],
        [("redirect_uri", "http://127.0.0.1.evil.example/cb")],
        [("redirect_uri", "http://localhost:1/cb")],
        [("redirect_uri", "javascript:alert(1)")],
        [("client_id", "pfc_unknown")],
        [("client_id", "")],
        [("client_id", "https://127.0.0.1/client.json")],
        [("client_id", "https://169.254.169.254/latest/meta-data")],
    ] {
        let page = ask(&changes).await;
        assert_eq!(page.status, 400, "{changes:?}");
        assert!(header(&page, "location").is_none());
        let text = page.text();
        assert!(!text.contains("href=\"http") && !text.contains("refresh"), "{text}");
    }
    // The port of a program on the person's machine may differ.
    assert_eq!(ask(&[("redirect_uri", "http://127.0.0.1:50123/cb")]).await.status, 200);
    // What else is wrong, the client is told, at its own place.
    for (changes, error) in [
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("scope", "token:create"), "invalid_scope"),
        (("resource", "https://other.example/mcp"), "invalid_target"),
    ] {
        let to = location(&ask(&[changes]).await);
        assert!(to.starts_with(&format!("{BACK}?error=")), "{to}");
        assert_eq!(field(&to, "error").as_deref(), Some(error), "{changes:?}");
        assert_eq!(field(&to, "iss").as_deref(), Some(app.web.origin().as_str()));
        assert_eq!(field(&to, "state").as_deref(), Some("s1"));
    }
    // A server that is called otherwise is another one.
    let forged = format!("/oauth/consent?{}&called_as=https://evil.example", app.query(&[]));
    assert_eq!(person.get(&forged).await.status, 400);
    let twice = format!("/oauth/authorize?{}&client_id=x", app.query(&[]));
    assert_eq!(person.get(&twice).await.status, 400, "a field twice");
}

#[tokio::test]
async fn consent_is_a_click_on_a_page_of_this_browser() {
    let served = Served::with(64, FAST).await;
    let (person, other) = (Web::signed_in(&served).await, Web::signed_in(&served).await);
    let app = App::registered(&served).await;
    let page = consent_page(&person, &app, &[]).await;
    let number = number(&page);
    let fields = [("page", number.as_str()), ("answer", "approve")];
    for headers in [
        String::new(),
        "Origin: https://evil.example\r\n".into(),
        "Origin: null\r\n".into(),
        "Sec-Fetch-Site: cross-site\r\n".into(),
        format!("Origin: {}\r\nSec-Fetch-Site: same-site\r\n", person.origin()),
    ] {
        let forged = person.form("/oauth/consent", &headers, &fields).await;
        assert_eq!(forged.status, 403, "{headers:?}");
    }
    assert_eq!(other.submit("/oauth/consent", &fields).await.status, 409, "another browser's");
    let nobody = Web::at_host(&person);
    assert_eq!(nobody.submit("/oauth/consent", &fields).await.status, 401);
    let guess = [("page", "guess"), ("answer", "approve")];
    assert_eq!(person.submit("/oauth/consent", &guess).await.status, 409);
    let silent = [("page", number.as_str())];
    assert_eq!(person.submit("/oauth/consent", &silent).await.status, 400);
    let no = [("page", number.as_str()), ("answer", "deny")];
    let to = location(&person.submit("/oauth/consent", &no).await);
    assert_eq!(field(&to, "error").as_deref(), Some("access_denied"));
    assert_eq!(person.submit("/oauth/consent", &fields).await.status, 409, "it was answered");
    assert_eq!(audited(&served, "oauth.denied").await, 1);
    // Who is not signed in is shown the way in, and nothing of the client.
    let way = nobody.get(&format!("/oauth/consent?{}", app.query(&[]))).await;
    assert_eq!(way.status, 200);
    assert!(way.text().contains("pinfold login") && !way.text().contains("name=\"page\""));
    // Let it look only.
    let page = consent_page(&person, &app, &[]).await;
    let number = self::number(&page);
    let look = [("page", number.as_str()), ("answer", "look")];
    let to = location(&person.submit("/oauth/consent", &look).await);
    let given = app.exchange(&field(&to, "code").expect("a code")).await;
    assert_eq!(json(&given)["scope"], "workspace:read");
}

#[tokio::test]
async fn who_is_not_on_the_list_lets_nobody_in() {
    let served = Served::with(64, FAST).await;
    let made = served.json("POST", "/api/v1/tokens", r#"{"name":"friend","reach":"all"}"#).await;
    let bearer =
        format!("Authorization: Bearer {}\r\n", json(&made)["token"].as_str().expect("one"));
    let mut friend = Web::at(&served, "pinfold.localhost");
    let link = json(&friend.send("POST /api/v1/logins", &bearer, "").await);
    let code = link["url"].as_str().and_then(|url| url.split_once("code=")).expect("a code").1;
    let done = friend.submit("/login", &[("code", code)]).await;
    friend.cookie = Some(crate::web::set_cookie(&done));
    let app = App::registered(&served).await;
    let page = consent_page(&friend, &app, &[]).await;
    assert_eq!(page.status, 403);
    assert!(page.text().contains("oauth.allowed") && !page.text().contains("name=\"page\""));
    assert_eq!(audited(&served, "oauth.refused").await, 1);
}

#[tokio::test]
async fn registrations_are_bounded() {
    let served = Served::with(64, FAST).await;
    let web = Web::at(&served, "localhost");
    let kind = "Content-Type: application/json\r\n";
    let many =
        format!(r#"{{"redirect_uris":[{}]}}"#, vec![r#""http://127.0.0.1/x""#; 17].join(","));
    for (body, status, error) in [
        ("{}", 400, "invalid_redirect_uri"),
        ("[", 400, "invalid_client_metadata"),
        (r#"{"redirect_uris":["http://evil.example/"]}"#, 400, "invalid_redirect_uri"),
        (r#"{"redirect_uris":["javascript:alert(1)"]}"#, 400, "invalid_redirect_uri"),
        (&many, 400, "invalid_redirect_uri"),
        (&format!(r#"{{"client_name":"{}"}}"#, "x".repeat(20 << 10)), 413, "invalid_request"),
    ] {
        let refused = web.send("POST /oauth/register", kind, body).await;
        assert_eq!((refused.status, &json(&refused)["error"]), (status, &error.into()));
    }
    let off = Served::with(64, &format!("{FAST}[oauth]\nregistration = false")).await;
    let web = Web::at(&off, "localhost");
    let body = r#"{"redirect_uris":["http://127.0.0.1/x"]}"#;
    assert_eq!(web.send("POST /oauth/register", kind, body).await.status, 403);
    let metadata = json(&web.get("/.well-known/oauth-authorization-server").await);
    assert!(metadata.get("registration_endpoint").is_none());
    let none = Served::with(64, &format!("{FAST}[oauth]\nenabled = false")).await;
    let web = Web::at(&none, "localhost");
    assert_eq!(web.get("/.well-known/oauth-authorization-server").await.status, 401);
}
