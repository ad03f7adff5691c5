//! The programs under test and the programs tests use.

use std::path::{Path, PathBuf};

/// One of this workspace's own programs, as built beside the running test.
///
/// # Panics
/// When it is not built: `make build` builds all of them.
pub fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let found = test.ancestors().skip(1).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built beside {}: make build", test.display());
    })
}

/// Whether a program can be found in `PATH`.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
            .any(|dir| dir.join(name).is_file())
    })
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The text of a file below `/proc`, where the process still is.
pub(crate) fn proc_text(pid: i32, file: &str) -> Option<String> {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
