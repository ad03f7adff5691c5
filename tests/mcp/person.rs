//! A person with a real browser (Debian's Chromium) lets the official TypeScript client in, by the
//! built-in authorization server.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{peers::node, provider::certificates, web};

#[test]
fn a_person_signs_in_with_a_browser_refuses_a_client_lets_it_in_and_signs_out() {
    let files = tempfile::tempdir().expect("a directory");
    let (root, chain, key) = certificates();
    let [root, chain, key] =
        [("root.pem", root), ("chain.pem", chain), ("key.pem", key)].map(|(name, text)| {
            let path = files.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        });
    let mut client = node("browser.mjs")
        .arg("/usr/bin/chromium")
        .args([&files.path().join("profile"), &chain, &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let mut output = BufReader::new(client.stdout.take().expect("its output"));
    let mut port = String::new();
    output.read_line(&mut port).expect("its port");
    let place = format!("127.0.0.1:{}", port.trim());
    let (server, address, _) = web::with_config(&format!(
        "[rates.tokens.login]\nper_second = 1000\nburst = 1000\n\
         [oauth.hosts.\"{place}\"]\nallow_private = true\nca_file = {:?}\n",
        root.to_str().expect("text")
    ));
    let link = server.pinfold(&["login", "--json"]).json();
    let link = link["url"].as_str().expect("a URL");
    let mut input = client.stdin.take().expect("its input");
    writeln!(input, "{link} http://{address}/mcp").expect("it listens");
    let mut said = String::new();
    output.read_line(&mut said).expect("it answers");
    let done = client.wait_with_output().expect("it ends");
    let failed = String::from_utf8_lossy(&done.stderr);
    let said: Value = serde_json::from_str(said.trim())
        .unwrap_or_else(|err| panic!("{err}: {said}\n{failed}\n{}", server.printed()));

    assert_eq!(said["stranger"], "Sign in to Pinfold", "{said}");
    assert_eq!(said["asked"], "Sign in to Pinfold", "{said}");
    assert_eq!(said["styled"], true, "{said}");
    assert_eq!(said["signed"], "Pinfold", "{said}");
    // No cookie that a script could read, nothing stored, and no script (F-04).
    assert_eq!(said["readable"], json!(["", 0, 0]), "{said}");
    let cookie = json!([{
        "domain": "pinfold.localhost", "httpOnly": true, "sameSite": "Strict", "path": "/"
    }]);
    assert_eq!(said["cookies"], cookie, "{said}");
    assert_eq!(said["used"], "That did not work", "a link works once: {said}");

    assert_eq!(said["consent"], "Let this client in?", "{said}");
    let shown = said["shown"].to_string();
    assert!(shown.contains("typescript") && shown.contains("127.0.0.1"), "{shown}");
    let issuer = format!("http://{address}");
    assert_eq!(said["denied"], json!(["access_denied", issuer, false]), "{said}");
    assert_eq!(said["back"], true, "{said}");
    assert!(said["tools"].as_u64().is_some_and(|tools| tools > 10), "{said}");
    assert_eq!(said["renewed"], json!([said["tools"], true]), "{said}");
    // A client that is known by its document, fetched over TLS, is called by what that says.
    let documented = said["documented"].to_string();
    let known = "by a document at 127.0.0.1";
    assert!(documented.contains("\"documented\"") && documented.contains(known), "{said}");
    assert_eq!(said["documented_tools"], said["tools"], "{said}");
    assert_eq!(said["let_in"], json!(["Your browsers: 1", "Clients you let in: 2"]), "{said}");
    assert_eq!(said["left"], "Signed out", "{said}");
    assert_eq!(said["after"], "Sign in to Pinfold", "{said}");
    assert_eq!(said["kept"], 0, "{said}");
    assert_eq!(said["still"], said["tools"], "what a person let in is not a browser's: {said}");
    assert_eq!(said["elsewhere"], json!([]), "a page asked another server: {said}");
    // The used link is refused as what it is, and nothing else makes a browser complain.
    let complaints = said["complaints"].as_array().expect("a list");
    assert_eq!(complaints.len(), 1, "{said}");
    assert!(complaints[0].as_str().is_some_and(|line| line.contains("401")), "{said}");
    server.stop();
}
