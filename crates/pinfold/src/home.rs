//! Where Pinfold keeps everything, and the names of the files there.

use std::path::{Path, PathBuf};

use pinfold_types::{Error, ErrorCode, Result};

/// The home directory. Clients use only `server.sock`, `start.lock` and `server.log`.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// From `--home`, `$PINFOLD_HOME`, or the XDG data directory; root uses `/var/lib/pinfold`.
    pub(crate) fn find(option: Option<&Path>) -> Result<Self> {
        let named =
            |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = if let Some(path) = option {
            path.to_owned()
        } else if let Some(path) = named("PINFOLD_HOME") {
            path
        } else if rustix::process::geteuid().is_root() {
            PathBuf::from("/var/lib/pinfold")
        } else if let Some(data) = named("XDG_DATA_HOME").filter(|path| path.is_absolute()) {
            data.join("pinfold")
        } else if let Some(home) = named("HOME").filter(|path| path.is_absolute()) {
            home.join(".local/share/pinfold")
        } else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "there is no HOME to keep Pinfold's files in",
            )
            .hint("set PINFOLD_HOME or give --home DIR"));
        };
        let path = std::path::absolute(&path).map_err(|error| {
            Error::new(ErrorCode::InvalidPath, format!("{} is not usable: {error}", path.display()))
        })?;
        // sockaddr_un holds 108 bytes with the NUL (unix(7)); run/<id>/guest.sock is the longest
        // name below the home.
        if path.as_os_str().len() > 60 {
            return Err(Error::new(
                ErrorCode::InvalidPath,
                format!("the home {} is longer than 60 bytes", path.display()),
            )
            .hint("socket paths must stay below 108 bytes; give a shorter --home"));
        }
        Ok(Self(path))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The server's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("server.sock")
    }

    /// Held by the server while it lives.
    pub(crate) fn server_lock(&self) -> PathBuf {
        self.0.join("server.lock")
    }

    /// Held by a client while it starts a server.
    pub(crate) fn start_lock(&self) -> PathBuf {
        self.0.join("start.lock")
    }

    /// Where a server that was started on demand logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The filesystem of the disks, where Pinfold made one in a file.
    pub(crate) fn pool_file(&self) -> PathBuf {
        self.0.join("pool.btrfs")
    }

    /// One file for each image; none before the first workspace.
    pub(crate) fn image_records(&self) -> PathBuf {
        self.0.join("images/records")
    }

    /// Keys of the server.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Key and certificate of the authority that the server's own certificates come from.
    pub(crate) fn authority(&self) -> PathBuf {
        self.keys().join("ca.pem")
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("state.db")
    }

    /// Extracted programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }
}
