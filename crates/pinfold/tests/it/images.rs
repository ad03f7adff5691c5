//! Images by command.

use std::fs;

use testkit::Server;

use crate::program::run;

#[test]
fn images_are_brought_in_named_listed_and_removed() {
    let server = Server::start();
    let home = server.home().path();
    let pinfold = |words: &[&str]| run(home, words);
    let root = server.home().beside("root");
    fs::create_dir_all(root.join("etc")).expect("made");
    fs::write(root.join("etc/x"), "x").expect("written");
    let root = root.to_str().expect("text");

    // An image may be called like an operation of the API.
    for name in ["pull", "prune", "team/app:1"] {
        let made = pinfold(&["image", "import", root, name]).ok();
        assert!(made.starts_with("img_") && made.ends_with(&format!(" {name}\n")), "{made}");
    }
    let names = pinfold(&["__names", "images"]).ok();
    for name in ["pull", "prune", "team/app:1"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
    for name in ["pull", "prune"] {
        assert!(pinfold(&["image", "rm", name]).ok().contains("freed"));
    }
    let left = pinfold(&["__names", "images"]).ok();
    assert!(!left.contains("pull") && !left.contains("prune") && left.contains("team/app:1"));
}

#[test]
fn what_cannot_be_imported_or_pulled_is_refused_with_the_way_out() {
    let server = Server::start();
    let home = server.home().path();
    let digest = format!("debian@sha256:{}", "A".repeat(64));
    for (words, code, says) in [
        (&["run", "--image", "default", "--", "true"][..], 125, "pinfold image import default"),
        (&["image", "import", "default", "--format", "directory"], 2, "--format belongs to"),
        (&["image", "import", "default", "--packages", "git"], 2, "--packages belongs to"),
        (&["image", "import", "/etc"], 2, "an image needs a name"),
        (&["image", "import", "/etc", "x", "--mirror", "http://a.org/d"], 2, "--mirror belongs"),
        (&["image", "import", "default", "--mirror", "file:/srv"], 2, "not the URL of a mirror"),
        (&["image", "import", "debian:--x"], 2, "not a valid image name"),
        (&["image", "import", "debian:sid", "--mirror", "http://10.0.0.5/d"], 4, "debian_mirror"),
        (&["image", "pull", &digest], 2, "its digest is wrong"),
    ] {
        let refused = run(home, words);
        assert_eq!(refused.code, code, "{words:?}: {}", refused.err);
        assert!(refused.err.contains(says), "{words:?}: {}", refused.err);
    }
    let names = run(home, &["__names", "images"]).ok();
    assert!(names.lines().all(|name| name == "host"), "{names}");
}
