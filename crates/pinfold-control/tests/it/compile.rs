//! A service function cannot be called without a grant of its operation, and a grant cannot be
//! made but by the authorizer: the compiler says so.
//!
//! Each file of `tests/compile` names in its first line the error that the compiler must give, or
//! says that it compiles. They are compiled against the libraries that this test was built with,
//! so that nothing is built twice and no network is needed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Crates that the cases use.
const CRATES: &[&str] = &["pinfold_control", "pinfold_auth", "pinfold_types", "serde_json"];

fn libraries() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--offline", "--quiet", "--lib", "--message-format=json"])
        .args(["--package", env!("CARGO_PKG_NAME")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut found = BTreeMap::new();
    for line in String::from_utf8(built.stdout).expect("JSON").lines() {
        let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let Some(name) = message["target"]["name"].as_str() else { continue };
        let files = message["filenames"].as_array().into_iter().flatten();
        let library = files.filter_map(|file| file.as_str()).find(|file| file.ends_with(".rlib"));
        if let Some(file) = library.filter(|_| CRATES.contains(&name)) {
            found.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    assert_eq!(found.len(), CRATES.len(), "{found:?}");
    found
}

/// Codes of the errors that the compiler gives for a case.
fn compile(case: &Path, libraries: &BTreeMap<String, PathBuf>, out: &Path) -> Vec<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata"])
        .args(["--crate-name", "case", "--error-format", "json", "--target"])
        .arg("x86_64-unknown-linux-gnu")
        .arg("--out-dir")
        .arg(out)
        .arg(case);
    for (name, file) in libraries {
        let deps = file.parent().expect("a directory");
        // Libraries lie in the directory itself or, uplifted, one above `deps`.
        for place in [deps.to_owned(), deps.join("deps")] {
            command.arg("-L").arg(format!("dependency={}", place.display()));
        }
        command.arg("--extern").arg(format!("{name}={}", file.display()));
    }
    // Procedural macros are built for the host, which is another directory than the target's.
    if let Some(target) = libraries
        .values()
        .find_map(|file| file.ancestors().find(|place| place.ends_with("x86_64-unknown-linux-gnu")))
    {
        let host = target.with_file_name("debug").join("deps");
        command.arg("-L").arg(format!("dependency={}", host.display()));
    }
    let done = command.output().expect("rustc runs");
    let codes: Vec<String> = String::from_utf8(done.stderr)
        .expect("JSON")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["level"] == "error")
        .filter_map(|message| {
            let text = message["rendered"].as_str().unwrap_or_default().to_owned();
            let closing = text.contains("aborting due to");
            let code = message["code"]["code"].as_str().map_or(text, str::to_owned);
            (!closing).then_some(code)
        })
        .collect();
    assert_eq!(done.status.success(), codes.is_empty(), "{}: {codes:?}", case.display());
    codes
}

#[test]
fn nothing_is_done_without_a_grant_and_no_grant_is_made_elsewhere() {
    let libraries = libraries();
    let out = tempfile::tempdir().expect("a directory");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile");
    let mut tried = 0;
    for entry in std::fs::read_dir(cases).expect("the cases") {
        let case = entry.expect("a case").path();
        let text = std::fs::read_to_string(&case).expect("text");
        let expected = text.lines().next().and_then(|line| line.strip_prefix("//! "));
        let codes = compile(&case, &libraries, out.path());
        match expected.expect("an expectation") {
            "compiles" => assert!(codes.is_empty(), "{}: {codes:?}", case.display()),
            code => {
                assert!(!codes.is_empty(), "{} compiles", case.display());
                assert!(codes.iter().all(|found| found == code), "{}: {codes:?}", case.display());
            }
        }
        tried += 1;
    }
    assert!(tried >= 11, "only {tried} cases were found");
}
