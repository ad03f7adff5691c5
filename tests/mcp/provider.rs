//! An external provider of `OpenID` Connect in place of the built-in authorization server: the
//! certified `oidc-provider` from npm, with TLS, and the official TypeScript client.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use testkit::Server;

use crate::{
    peers::{self, node},
    web::{self, Web},
};

/// A provider that runs.
struct Provider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    issuer: String,
    files: tempfile::TempDir,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    fn start() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let (root, chain, key) = certificates();
        for (name, text) in [("root.pem", root), ("chain.pem", chain), ("key.pem", key)] {
            std::fs::write(files.path().join(name), text).expect("a file");
        }
        let mut child = node("provider.mjs")
            .args([files.path().join("chain.pem"), files.path().join("key.pem")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the provider starts");
        let input = child.stdin.take().expect("its input");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut issuer = String::new();
        output.read_line(&mut issuer).expect("its issuer");
        let issuer = issuer.trim().to_owned();
        assert!(issuer.starts_with("https://"), "{issuer:?}");
        Self { child, input, output, issuer, files }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input, "{question}").expect("it listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }

    fn sign(&mut self, header: &Value, claims: &Value, key: &str) -> String {
        let signed = self.ask(&json!({"sign": {"header": header, "claims": claims, "key": key}}));
        signed["token"].as_str().expect("a token").to_owned()
    }

    /// The configuration of a server that trusts it.
    fn config(&self) -> String {
        let place = self.issuer.strip_prefix("https://").expect("https");
        let root = self.files.path().join("root.pem");
        format!(
            "[rates.tokens.login]\nper_second = 1000\nburst = 1000\n\
             [oidc]\nissuer = \"{}\"\n\
             [oidc.scopes]\npinfold = [\"*\"]\n\"pinfold.look\" = [\"workspace:read\", \
             \"files:read\", \"mcp:connect\", \"session:create\", \"session:end\"]\n\
             [oidc.hosts.\"{place}\"]\nallow_private = true\nca_file = \"{}\"\n",
            self.issuer,
            root.display()
        )
    }

    /// What the official client says of its way.
    fn drive(&self, server: &Server, address: SocketAddr, account: &str, scope: &str) -> Value {
        let mut client = node("oauth.mjs");
        client
            .args([&format!("http://{address}/mcp"), account, scope])
            .env("NODE_EXTRA_CA_CERTS", self.files.path().join("root.pem"));
        let said = peers::drive(server, &mut client);
        serde_json::from_str(said.trim()).unwrap_or_else(|err| panic!("{err}: {said}"))
    }
}

/// A root, and a certificate of it for loopback with its key, PEM.
pub(crate) fn certificates() -> (String, String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("a root");
    params.distinguished_name.push(rcgen::DnType::CommonName, "root of a test");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root");
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a leaf");
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).expect("a leaf");
    (root.pem(), leaf.pem(), leaf_key.serialize_pem())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Claims that a server believes, for a client that calls it by this address.
fn claims(provider: &Provider, address: SocketAddr, subject: &str) -> Value {
    json!({
        "iss": provider.issuer, "aud": format!("http://{address}/mcp"), "sub": subject,
        "exp": seconds() + 300, "client_id": "test", "scope": "openid pinfold",
    })
}

fn status(address: SocketAddr, token: &str) -> u16 {
    Web::new(address, token).post(&web::initialize("2025-11-25")).status
}

fn person(server: &Server, name: &str, subject: &str, more: &[&str]) -> Value {
    let mut words = vec!["token", "create", name, "--subject", subject, "--json"];
    words.extend(more);
    server.pinfold(&words).json()
}

/// One of the provider's tokens that the server has seen.
fn known(server: &Server) -> Value {
    let list = server.pinfold(&["token", "ls", "--json"]).json();
    let items = list.get("items").unwrap_or(&list).as_array().expect("tokens");
    items.iter().find(|one| one["class"] == "mcp").expect("one of the provider's").clone()
}

#[test]
fn the_typescript_client_finds_an_external_provider_and_comes_back_as_who_was_named() {
    let provider = Provider::start();
    let (server, address, owner) = web::with_config(&provider.config());

    let stranger = provider.drive(&server, address, "alice", "pinfold");
    let error = stranger["error"].as_str().expect("nobody has named alice");
    assert!(error.contains("valid credential"), "{error}");

    let alice = person(&server, "alice", "alice", &[]);
    assert!(alice.get("token").is_none(), "there is no text: {alice}");
    assert_eq!(
        (&alice["info"]["class"], &alice["info"]["subject"]),
        (&json!("oidc"), &json!("alice"))
    );
    let said = provider.drive(&server, address, "alice", "pinfold");
    assert!(said["tools"].as_u64().is_some_and(|tools| tools > 10), "{said}");
    let token = said["token"].as_str().expect("a token");

    // It opens MCP and nothing else, and is somebody in the list and the log.
    let rest = Web::new(address, token).send("GET", "/api/v1/whoami", "", b"");
    assert_eq!(rest.status, 401);
    let shown = known(&server);
    assert_eq!(shown["principal"], alice["info"]["principal"]);
    assert_eq!(shown["subject"], "alice");
    let scopes = shown["scopes"].as_array().expect("scopes");
    assert!(!scopes.iter().any(|scope| scope == "token:create"), "{scopes:?}");
    let log = server.pinfold(&["audit", "tail", "--json"]).stdout;
    assert!(log.contains("oidc.admitted") && !log.contains(token), "{log}");

    // Fewer rights, and the provider's word for those that it takes.
    let looks = provider.drive(&server, address, "alice", "pinfold.look");
    let looks = Web::new(address, looks["token"].as_str().expect("a token")).begin("2025-11-25");
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "workspace_create", "arguments": {}}});
    let refused = looks.post(&call);
    assert_eq!(refused.status, 403);
    let challenge = &refused.headers["www-authenticate"];
    let asked = "scope=\"pinfold pinfold.look\"";
    assert!(challenge.contains("insufficient_scope") && challenge.contains(asked), "{challenge}");

    // The built-in server is closed.
    for path in ["/.well-known/oauth-authorization-server", "/oauth/authorize"] {
        assert_eq!(Web::new(address, &owner).send("GET", path, "", b"").status, 404, "{path}");
    }
    server.stop();
}

#[test]
fn only_tokens_of_the_provider_for_this_server_are_believed() {
    let mut provider = Provider::start();
    let (server, address, _) = web::with_config(&provider.config());
    person(&server, "alice", "alice", &[]);
    let good = claims(&provider, address, "alice");
    let header = json!({"typ": "at+jwt"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        match value {
            Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
            value => claims[name] = value,
        }
        claims
    };
    let bad = [
        (header.clone(), good.clone(), "other"),
        (header.clone(), good.clone(), "public"),
        (header.clone(), good.clone(), "none"),
        (json!({"typ": "logout+jwt"}), good.clone(), "own"),
        (json!({"typ": "at+jwt", "crit": ["b64"], "b64": true}), good.clone(), "own"),
        (header.clone(), with("iss", json!("https://other.example")), "own"),
        (header.clone(), with("iss", Value::Null), "own"),
        (header.clone(), with("aud", json!("https://other.example/mcp")), "own"),
        (header.clone(), with("aud", json!(format!("http://{address}"))), "own"),
        (header.clone(), with("aud", Value::Null), "own"),
        (header.clone(), with("sub", json!("mallory")), "own"),
        (header.clone(), with("sub", Value::Null), "own"),
        (header.clone(), with("sub", json!("")), "own"),
        (header.clone(), with("sub", json!(["alice"])), "own"),
        (header.clone(), with("exp", json!(seconds() - 120)), "own"),
        (header.clone(), with("exp", Value::Null), "own"),
        (header.clone(), with("exp", json!("tomorrow")), "own"),
        (header.clone(), with("nbf", json!(seconds() + 600)), "own"),
        (header.clone(), with("cnf", json!({"jkt": "x"})), "own"),
    ];
    for (header, claims, key) in bad {
        let token = provider.sign(&header, &claims, key);
        assert_eq!(status(address, &token), 401, "{key} {header} {claims}");
    }
    let token = provider.sign(&header, &good, "own");
    let mut forged = token.clone();
    forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
    assert_eq!(status(address, &forged), 401);
    assert_eq!(status(address, &token), 200, "and one that is right stands");
    // Several audiences, and scopes as a list, as some providers write them.
    let mut listed = with("aud", json!(["x", format!("http://{address}/mcp")]));
    listed["scp"] = json!(["pinfold"]);
    let listed = provider.sign(&json!({}), &listed, "own");
    assert_eq!(status(address, &listed), 200);
    // A session is its client's: the next token of the same client goes on with it, another's not.
    let session = Web::new(address, &token).begin("2025-11-25");
    let list = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"});
    let same = provider.sign(&header, &with("exp", json!(seconds() + 200)), "own");
    let other = provider.sign(&header, &with("client_id", json!("other")), "own");
    for (next, expected) in [(&same, 200), (&other, 404)] {
        let headers = session.headers.replace(&token, next);
        assert_eq!(Web::with_headers(address, headers).post(&list).status, expected);
    }
    // Rights are only those of words that mean something.
    let nothing = provider.sign(&header, &with("scope", json!("openid email")), "own");
    assert_eq!(status(address, &nothing), 403);
    server.stop();
}

#[test]
fn who_is_revoked_stays_out_whatever_the_provider_says() {
    let mut provider = Provider::start();
    let (mut server, address, _) = web::with_config(&provider.config());
    let header = json!({"typ": "at+jwt"});
    let alice = person(&server, "alice", "alice", &[]);
    let claims = claims(&provider, address, "alice");
    let first = provider.sign(&header, &claims, "own");
    let second = provider.sign(&json!({}), &claims, "own");
    assert_eq!((status(address, &first), status(address, &second)), (200, 200));

    // One token, and with its person all of them; a crash between changes nothing.
    let shown = known(&server)["id"].as_str().expect("an id").to_owned();
    server.pinfold(&["token", "revoke", &shown]).ok();
    let stand = |address| [&first, &second].map(|token| status(address, token));
    assert_eq!(stand(address).iter().filter(|status| **status == 200).count(), 1);
    server.kill();
    server.start_again();
    let address = web::address(&server);
    let again = stand(address);
    assert_eq!(again.iter().filter(|status| **status == 200).count(), 1, "{again:?}");
    server.pinfold(&["token", "revoke", "alice"]).ok();
    assert_eq!(stand(address), [401, 401]);

    // Somebody can be named again, once at a time, and by the owner alone.
    let taken = person(&server, "alice2", "alice", &[]);
    assert_ne!(taken["info"]["principal"], alice["info"]["principal"]);
    assert_eq!(stand(address), [401, 401], "what was revoked stays so");
    let twice = server.pinfold(&["token", "create", "x", "--subject", "alice"]);
    assert!(twice.stderr.contains("already"), "{}", twice.stderr);
    let maker = web::token(&server, &json!({"name": "maker"}));
    let asked = json!({"name": "bob", "subject": "bob"}).to_string();
    let kind = "Content-Type: application/json\r\n";
    let refused = Web::new(address, &maker).send("POST", "/api/v1/tokens", kind, asked.as_bytes());
    assert_eq!(refused.status, 403);
    server.stop();
}

#[test]
fn keys_are_looked_at_again_when_a_new_one_is_named_and_not_for_every_stranger() {
    let mut provider = Provider::start();
    let (server, address, _) = web::with_config(&provider.config());
    person(&server, "alice", "alice", &[]);
    let header = json!({"typ": "at+jwt"});
    let claims = claims(&provider, address, "alice");
    let token = provider.sign(&header, &claims, "own");
    assert_eq!(status(address, &token), 200);
    for name in ["x", "y", "z"] {
        let forged = provider.sign(&json!({"kid": name}), &claims, "other");
        assert_eq!(status(address, &forged), 401);
    }
    assert_eq!(provider.ask(&json!({"looks": true}))["looks"], 1, "strangers choose names of keys");
    // A server that looks for the first time sees the key of now.
    provider.ask(&json!({"rotate": true}));
    let (other, elsewhere, _) = web::with_config(&provider.config());
    person(&other, "alice", "alice", &[]);
    let old = provider.sign(&header, &claims, "other");
    assert_eq!(status(elsewhere, &old), 401);
    let fresh = self::claims(&provider, elsewhere, "alice");
    let fresh = provider.sign(&header, &fresh, "own");
    assert_eq!(status(elsewhere, &fresh), 200);
    assert_eq!(status(address, &token), 200, "what was verified stands until its end");
    other.stop();
    server.stop();
}

#[test]
fn without_a_provider_nobody_is_vouched_for_and_without_its_keys_nobody_new() {
    let (server, address, _) = web::server();
    let refused = server.pinfold(&["token", "create", "a", "--subject", "alice"]);
    assert!(refused.stderr.contains("oidc.issuer"), "{}", refused.stderr);
    let mut provider = Provider::start();
    let claims = claims(&provider, address, "alice");
    let token = provider.sign(&json!({}), &claims, "own");
    assert_eq!(status(address, &token), 401);
    server.stop();

    let config = provider.config();
    drop(provider);
    let (server, address, _) = web::with_config(&config);
    person(&server, "alice", "alice", &[]);
    assert_eq!(status(address, &token), 503);
    server.stop();
}
