//! The guest and the launcher: carried in a release build, beside the program otherwise.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pinfold_types::{Error, ErrorCode, Result};

use crate::home::Home;

/// A program that this binary carries: its name, digest and bytes. Filled by the build script.
pub(crate) struct Embedded {
    pub(crate) name: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Where a program can be executed from: extracted into the home, or beside us.
pub(crate) fn program(home: &Home, name: &str) -> Result<PathBuf> {
    match EMBEDDED.iter().find(|embedded| embedded.name == name) {
        Some(embedded) => extract(home, embedded),
        None => beside(name),
    }
}

fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::internal)?;
    // Tests run from a directory below the one that holds the programs.
    let places = own.ancestors().skip(1).take(2).map(|place| place.join(name));
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::new(ErrorCode::Unavailable, format!("{name} is not beside {}", own.display()))
            .hint("build all programs: cargo build")
    })
}

/// `bin/NAME-SHA256`, 0500. It is written whole under another name first, so that a crash leaves
/// no half program under the name that counts; its content is checked at every start.
fn extract(home: &Home, embedded: &Embedded) -> Result<PathBuf> {
    let directory = home.bin();
    let path = directory.join(format!("{}-{}", embedded.name, &embedded.sha256[..16]));
    let failed = |error: io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be made: {error}", path.display()))
    };
    if is_whole(&path, embedded.bytes) {
        return Ok(path);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    let part = directory.join(format!(".{}.{}", embedded.name, std::process::id()));
    let _absent = fs::remove_file(&part);
    let mut file =
        File::options().write(true).create_new(true).mode(0o500).open(&part).map_err(failed)?;
    file.write_all(embedded.bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o500)))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    // A file that is open for writing cannot be executed (ETXTBSY, execve(2)).
    drop(file);
    fs::rename(&part, &path).map_err(failed)?;
    forget_older(&directory, embedded.name, &path);
    Ok(path)
}

/// Takes away what earlier versions extracted. What runs of it goes on: it has the file open.
fn forget_older(directory: &Path, name: &str, current: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != current) {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let ours = [name, &format!(".{name}")]
            .iter()
            .any(|stem| file.strip_prefix(stem).is_some_and(|rest| rest.starts_with(['-', '.'])));
        if ours {
            let _left = fs::remove_file(&path);
        }
    }
}

fn is_whole(path: &Path, bytes: &[u8]) -> bool {
    let mode = path.symlink_metadata().map(|metadata| metadata.permissions().mode() & 0o777);
    matches!(mode, Ok(0o500)) && fs::read(path).is_ok_and(|found| found == bytes)
}
