//! Servers on TCP: when they refuse to start, and commands that use one from elsewhere.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use testkit::{Home, Server, ServerOptions};

use crate::program::{Said, run};

const LOCAL_CA: &str = "[server]\ntls = \"local-ca\"\n";

#[test]
fn what_would_let_strangers_in_does_not_start() {
    let everywhere = "[server]\nlisten = [\"0.0.0.0:0\"]\n";
    let key = tempfile::NamedTempFile::new().expect("a file");
    fs::set_permissions(key.path(), fs::Permissions::from_mode(0o640)).expect("our own file");
    let files = |key: &Path| format!("[server]\ntls_cert = {key:?}\ntls_key = {key:?}\n");
    for (config, words, code, text) in [
        (everywhere.to_owned(), &["up"][..], 9, "tls = \"local-ca\""),
        (String::new(), &["up", "--listen", "[::]:0"], 9, "there is no TLS"),
        (String::new(), &["up", "--listen", "192.0.2.1:0"], 9, "there is no TLS"),
        (LOCAL_CA.to_owned(), &["up", "--listen", "0.0.0.0:0"], 9, "nobody has a token"),
        (files(key.path()), &["up", "--listen", "127.0.0.1:0"], 2, "is not a chain"),
        ("[server]\ntls_cert = \"c\"\n".to_owned(), &["up"], 2, "belong together"),
        ("[server]\norigins = [\"*\"]\n".to_owned(), &["up"], 2, "not an exact origin"),
        ("[server]\norigins = [\"https://*.a\"]\n".to_owned(), &["up"], 2, "not an exact origin"),
        ("[server]\nhosts = [\"*.example\"]\n".to_owned(), &["up"], 2, "not a host name"),
        (String::new(), &["up", "--listen", "localhost"], 2, "address with a port"),
    ] {
        let home = Home::new();
        home.write_config(&config);
        let said = run(home.path(), words);
        assert_eq!(said.code, code, "{config:?} {words:?}: {said:?}");
        assert!(said.err.contains(text), "{config:?} {words:?}: {}", said.err);
        assert!(!home.path().join("server.sock").exists(), "{config:?} listens");
    }
}

/// A command that uses the server at this URL, with this token and pin.
fn from_elsewhere(url: &str, token: &str, pin: &str, words: &[&str]) -> Said {
    let nobody = Home::new();
    let mut command = crate::program::pinfold(nobody.path());
    command.env("PINFOLD_SERVER", url).env("PINFOLD_TOKEN", token).env("PINFOLD_CA_PIN", pin);
    let said = Said::of(&command.args(words).output().expect("it starts"));
    assert!(!nobody.path().join("server.log").exists(), "a server was started here");
    said
}

#[test]
fn commands_reach_a_server_elsewhere_that_they_pinned() {
    let options = ServerOptions {
        config: LOCAL_CA.into(),
        listen: vec!["127.0.0.1:0".into()],
        ..ServerOptions::default()
    };
    let server = Server::with(options);
    let home = server.home().path();
    let made = run(home, &["token", "create", "far", "--json"]).json();
    let token = made["token"].as_str().expect("a token").to_owned();
    let pin = run(home, &["ca", "show"]).ok().trim().to_owned();
    let file = home.join("keys/ca.pem");
    assert_eq!(fs::metadata(&file).expect("it was made").permissions().mode() & 0o777, 0o600);
    let exported = run(home, &["ca", "export"]).ok();
    assert!(exported.contains("BEGIN CERTIFICATE") && !exported.contains("PRIVATE"), "{exported}");

    let port = testkit::until("the TCP address", std::time::Duration::from_secs(30), || {
        server.tcp().first().map(std::net::SocketAddr::port)
    });
    let url = format!("https://127.0.0.1:{port}");
    from_elsewhere(&url, &token, &pin, &["create", "far"]).ok();
    let said = from_elsewhere(&url, &token, &pin, &["exec", "far", "--", "echo", "hello"]);
    assert_eq!(said.ok(), "hello\n");
    // The certificate is for the name, too.
    let named = format!("https://localhost:{port}");
    assert_eq!(from_elsewhere(&named, &token, &pin, &["ls", "--json"]).code, 0);

    let other = format!("sha256:{}", "0".repeat(64));
    let said = from_elsewhere(&url, &token, &other, &["ls"]);
    assert!(said.code == 10 && said.err.contains("not trusted"), "{said:?}");
    let said = from_elsewhere(&url, &token, "", &["ls"]);
    assert!(said.code == 10 && said.err.contains("--ca-pin"), "{said:?}");
    let said = from_elsewhere(&url, "pf_wrong", &pin, &["ls"]);
    assert_eq!(said.code, 4, "{said:?}");
    for (url, token, words, text) in [
        (url.as_str(), "", &["ls"][..], "PINFOLD_TOKEN"),
        ("http://192.0.2.1:7070", &token, &["ls"], "plain http"),
        ("https://127.0.0.1/x", &token, &["ls"], "server's URL"),
        (&url, &token, &["down"], "this machine"),
        (&url, &token, &["ls", "--token-file", "/dev/null"], "open to others"),
    ] {
        let said = from_elsewhere(url, token, &pin, words);
        assert!(said.code != 0 && said.err.contains(text), "{url} {words:?}: {said:?}");
        assert!(!said.err.contains(token) || token.is_empty(), "the token is told: {said:?}");
    }
    // A key that others can read is refused, whoever's it is.
    let key = home.join("loose.pem");
    fs::copy(&file, &key).expect("our own file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("our own file");
    let third = Home::new();
    third.write_config(&format!("[server]\ntls_cert = {file:?}\ntls_key = {key:?}\n"));
    let said = run(third.path(), &["up", "--listen", "127.0.0.1:0"]);
    assert!(said.code == 2 && said.err.contains("chmod 600"), "{said:?}");
    run(home, &["rm", "--force", "far"]).ok();
    server.stop();
}
