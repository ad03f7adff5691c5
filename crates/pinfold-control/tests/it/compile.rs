//! A service function cannot be called without a grant of its operation, and a grant cannot be
//! made but by the authorizer: the compiler says so.
//!
//! Each file of `tests/compile` names in its first line the error that the compiler must give, or
//! says that it compiles. They are compiled against the libraries that lie beside this test since
//! it was built, so that nothing is built twice, no lock is waited for and no network is needed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// Variants of one library that are looked at, newest first. Cargo keeps one for each set of
/// features that it was built with.
const VARIANTS: usize = 6;

/// Where this test and its libraries were built.
struct Built {
    target: PathBuf,
    host: PathBuf,
    at: SystemTime,
}

impl Built {
    fn find() -> Self {
        let test = std::env::current_exe().expect("this test");
        let at = test.metadata().and_then(|facts| facts.modified()).expect("its time");
        // target/TRIPLE/PROFILE/deps/it-…; procedural macros are in target/PROFILE/deps.
        let target = test.parent().expect("deps").to_owned();
        let up = |steps| target.ancestors().nth(steps).expect("target/TRIPLE/PROFILE/deps");
        let host = up(3).join(up(1).file_name().expect("a profile")).join("deps");
        Self { target, host, at }
    }

    /// Variants of a library that are not younger than this test, newest first.
    fn variants(&self, name: &str) -> Vec<PathBuf> {
        let prefix = format!("lib{name}-");
        let mut found: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&self.target)
            .expect("deps")
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_one = path.file_name()?.to_str()?.starts_with(&prefix)
                    && path.extension().is_some_and(|ending| ending == "rlib");
                let built = path.metadata().ok()?.modified().ok()?;
                (is_one && built <= self.at).then_some((built, path))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().take(VARIANTS).map(|(_, path)| path).collect()
    }
}

/// Three libraries that were built for each other.
struct Libraries<'b> {
    built: &'b Built,
    externs: [(&'static str, PathBuf); 3],
}

/// Codes of the errors that the compiler gives for a case; whole texts where there is no code.
fn compile(case: &Path, libraries: &Libraries<'_>, out: &Path) -> Vec<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata"])
        .args(["--crate-name", "case", "--error-format", "json"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--out-dir"])
        .arg(out)
        .arg(case);
    for place in [&libraries.built.target, &libraries.built.host] {
        command.arg("-L").arg(format!("dependency={}", place.display()));
    }
    for (name, file) in &libraries.externs {
        command.arg("--extern").arg(format!("{name}={}", file.display()));
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

/// The newest variants with which the case that must compile does.
fn matching<'b>(built: &'b Built, good: &Path, out: &Path) -> Libraries<'b> {
    let mut last = Vec::new();
    for control in built.variants("pinfold_control") {
        for auth in built.variants("pinfold_auth") {
            for types in built.variants("pinfold_types") {
                let externs = [
                    ("pinfold_control", control.clone()),
                    ("pinfold_auth", auth.clone()),
                    ("pinfold_types", types),
                ];
                let libraries = Libraries { built, externs };
                last = compile(good, &libraries, out);
                if last.is_empty() {
                    return libraries;
                }
            }
        }
    }
    panic!("{} does not compile: {last:?}", good.display());
}

#[test]
fn nothing_is_done_without_a_grant_and_no_grant_is_made_elsewhere() {
    let built = Built::find();
    let out = tempfile::tempdir().expect("a directory");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile");
    let libraries = matching(&built, &cases.join("with_a_grant.rs"), out.path());
    let mut refused = 0;
    for entry in std::fs::read_dir(cases).expect("the cases") {
        let case = entry.expect("a case").path();
        let text = std::fs::read_to_string(&case).expect("text");
        let expected = text.lines().next().and_then(|line| line.strip_prefix("//! "));
        match expected.expect("an expectation") {
            "compiles" => {}
            code => {
                let codes = compile(&case, &libraries, out.path());
                assert!(!codes.is_empty(), "{} compiles", case.display());
                assert!(codes.iter().all(|found| found == code), "{}: {codes:?}", case.display());
                refused += 1;
            }
        }
    }
    assert!(refused >= 9, "only {refused} cases were found");
}
