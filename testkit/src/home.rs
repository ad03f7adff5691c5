//! A `PINFOLD_HOME` for one test.

use std::path::{Path, PathBuf};

use crate::leftovers::Leftovers;

/// A home directory that is cleaned up on drop: processes, mounts, loop devices, cgroups, files.
#[derive(Debug)]
pub struct Home {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Home {
    /// An empty home, 0700, in the system's temporary directory (`TMPDIR` moves it).
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("pf-test-").tempdir().expect("a temporary directory");
        let path = directory.path().canonicalize().expect("it was just made").join("home");
        std::fs::create_dir(&path).expect("a new directory");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .expect("our own directory");
        Self { directory: Some(directory), path }
    }

    /// The home itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory beside the home, for a test's own files.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Writes `config.toml`, 0600.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_config(&self, text: &str) {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join("config.toml"))
            .expect("the configuration file");
        file.write_all(text.as_bytes()).expect("the configuration file");
    }

    /// What of this home is left on the machine.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(&self.path)
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// How much of a server's log a failed test shows.
const SHOWN_LINES: usize = 60;

#[expect(clippy::print_stderr, reason = "a drop has no other way to say it")]
impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read(self.path.join("server.log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
            eprintln!("testkit: the end of server.log:\n{}", last.join("\n"));
        }
        self.leftovers().clear();
        if let Some(directory) = self.directory.take()
            && let Err(err) = directory.close()
        {
            eprintln!("testkit: {}: {err}", self.path.display());
        }
    }
}
