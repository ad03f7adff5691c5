//! A person with a real browser (Debian's Chromium) lets the official TypeScript client in, by the
//! built-in authorization server.

use serde_json::{Value, json};

use crate::{
    peers::{self, node},
    web,
};

#[test]
fn a_person_signs_in_with_a_browser_refuses_a_client_lets_it_in_and_signs_out() {
    let (server, address, _) = web::server();
    let link = server.pinfold(&["login", "--json"]).json();
    let link = link["url"].as_str().expect("a URL");
    let profile = tempfile::tempdir().expect("a directory");
    let url = format!("http://{address}/mcp");
    let mut client = node("browser.mjs");
    client.arg("/usr/bin/chromium").arg(profile.path()).args([link, &url]);
    let said = peers::drive(&server, &mut client);
    let said: Value =
        serde_json::from_str(said.trim()).unwrap_or_else(|err| panic!("{err}: {said}"));

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
    assert_eq!(said["let_in"], json!(["Your browsers: 1", "Clients you let in: 1"]), "{said}");
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
