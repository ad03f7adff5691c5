//! The home before anything uses it: 0700, ours, and nothing in it that others may touch
//! (AUTH-10).

use std::{
    fs::{DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use pinfold_types::{Error, ErrorCode, Result};

use crate::home::Home;

/// Makes the home, or refuses one that others can look into, with the command that mends it.
pub(super) fn prepare(home: &Home) -> Result<()> {
    let path = home.path();
    let failed = |error: io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be used: {error}", path.display()))
            .hint("give another with --home DIR")
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
            // The umask may have taken bits, never added some.
            std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
        Ok(metadata) => check(path, &metadata, 0o700, "directory")?,
    }
    for file in [home.config(), home.database(), home.server_lock(), home.start_lock(), home.log()]
    {
        match file.symlink_metadata() {
            Ok(metadata) => check(&file, &metadata, 0o600, "file")?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn check(path: &Path, metadata: &Metadata, mode: u32, kind: &str) -> Result<()> {
    let refuse = |why: String, mend: String| {
        Err(Error::new(ErrorCode::InvalidPath, format!("{} {why}", path.display())).hint(mend))
    };
    let right = if kind == "directory" { metadata.is_dir() } else { metadata.is_file() };
    if !right {
        return refuse(format!("is not a {kind}"), "move it away, or give another --home".into());
    }
    let uid = rustix::process::geteuid().as_raw();
    if metadata.uid() != uid {
        return refuse(
            format!("belongs to uid {}, not to {uid}", metadata.uid()),
            format!("run as its owner, or: chown -R {uid} {}", path.display()),
        );
    }
    let loose = metadata.permissions().mode() & 0o077;
    if loose != 0 {
        return refuse(
            format!("is open to others (mode {:04o})", metadata.permissions().mode() & 0o7777),
            format!("chmod {mode:o} {}", path.display()),
        );
    }
    Ok(())
}
