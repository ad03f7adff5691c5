//! What listens beside the API, and starts that are refused.

use testkit::{Home, Server};

/// Where a server says that `what` is served: `metrics`, `profiles`.
pub(crate) fn place(server: &Server, what: &str) -> String {
    let printed = server.printed();
    let before = format!("{what} are served place=");
    let after = printed.split(before.as_str()).nth(1).expect("it says where");
    after.split_whitespace().next().expect("an address").to_owned()
}

/// What `pinfold up` says of a configuration with which it does not start.
#[track_caller]
pub(crate) fn refused_start(config: &str) -> String {
    let home = Home::new();
    home.write_config(config);
    let done = std::process::Command::new(testkit::bin("pinfold"))
        .args(["up", "--listen", "none", "--metrics", "none"])
        .env("PINFOLD_HOME", home.path())
        .output()
        .expect("pinfold up");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success(), "{config}: {said}");
    said.into_owned()
}
