//! Embeds the guest and the launcher.
//!
//! They are built first, with their own profile, and found in `PINFOLD_EMBED_DIR`. A debug build
//! without it carries none and looks for them beside itself; a release build fails.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

const PROGRAMS: &[&str] = &["pinfold-guest", "pinfold-launcher"];
/// Carried when they are there.
const OPTIONAL: &[&str] = &["pinfold-attack"];

fn main() {
    println!("cargo::rerun-if-env-changed=PINFOLD_EMBED_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let entries = match env::var_os("PINFOLD_EMBED_DIR").filter(|value| !value.is_empty()) {
        Some(directory) => entries(Path::new(&directory)),
        None if release => {
            println!(
                "cargo::error=a release build carries pinfold-guest and pinfold-launcher: set PINFOLD_EMBED_DIR to the directory that holds them (make build does)"
            );
            return;
        }
        None => String::new(),
    };
    let text = format!(
        "/// What this build carries.\npub(crate) const EMBEDDED: &[Embedded] = &[\n{entries}];\n"
    );
    fs::write(out.join("embedded.rs"), text).expect("OUT_DIR can be written");
}

fn entries(directory: &Path) -> String {
    let directory = directory.canonicalize().expect("PINFOLD_EMBED_DIR is a directory");
    let mut text = String::new();
    for name in PROGRAMS.iter().chain(OPTIONAL) {
        let path = directory.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let Ok(bytes) = fs::read(&path) else {
            if OPTIONAL.contains(name) {
                continue;
            }
            println!("cargo::error={} cannot be read", path.display());
            return text;
        };
        let digest = sha256(&bytes);
        let _infallible = writeln!(
            text,
            "    Embedded {{ name: {name:?}, sha256: {digest:?}, bytes: include_bytes!({:?}) }},",
            path.display().to_string()
        );
    }
    text
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
