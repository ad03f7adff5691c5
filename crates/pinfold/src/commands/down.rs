//! `down`: the end of a home's server, and of the pool's mount.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use pinfold_types::{Error, ErrorCode, Result};
use rustix::mount::{UnmountFlags, unmount};

use super::{Context, workspace};
use crate::{
    args::server::Down,
    home::Home,
    server::{self, Running, Serving},
};

/// How long a server may take to end its streams and close its records.
const ENDING: Duration = Duration::from_mins(1);

pub(super) async fn down(context: &Context, args: &Down) -> Result<()> {
    let mounted = if args.unmount { pool_mount(&context.home)? } else { None };
    let mut serving = Serving::of(&context.home)?;
    if mounted.is_some() {
        // The records say what runs; where no server has them open, one is started to ask.
        drop(serving);
        refuse_running(context).await?;
        serving = Serving::of(&context.home)?;
    }
    let ended = match serving {
        Serving::By(server) => {
            let pid = server.pid;
            end(context, server).await?;
            serving = Serving::of(&context.home)?;
            Some(pid)
        }
        Serving::No(_) => None,
    };
    if let Some(pool) = &mounted {
        // Held until the mount is gone, so that no server begins to use it.
        let Serving::No(_lock) = &serving else {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("another server started; {} stays mounted", pool.display()),
            )
            .hint("try again when no other command is at work"));
        };
        unmount(pool, UnmountFlags::empty()).map_err(|errno| {
            Error::new(
                ErrorCode::Conflict,
                format!("{} cannot be unmounted: {errno}", pool.display()),
            )
            .hint("something uses it: look with `fuser -vm`")
        })?;
    }
    let answer = serde_json::json!({"ended": ended, "unmounted": mounted});
    context.output.show(&answer, |_| {
        let server = match ended {
            Some(pid) if args.unmount => format!("the server with pid {pid} has ended\n"),
            Some(pid) => format!("the server with pid {pid} has ended; workspaces go on\n"),
            None => "no server runs\n".to_owned(),
        };
        let pool = match &mounted {
            Some(pool) => format!("{} is unmounted\n", pool.display()),
            None if args.unmount => "no pool file is mounted\n".to_owned(),
            None => String::new(),
        };
        server + &pool
    })
}

async fn end(context: &Context, server: Running) -> Result<()> {
    server.ask_to_end()?;
    let pid = server.pid;
    let ended = tokio::task::spawn_blocking(move || server.ended(ENDING)).await;
    if ended.map_err(Error::internal)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::Timeout,
        format!("the server with pid {pid} has not ended within {} s", ENDING.as_secs()),
    )
    .hint(format!("look at {}; nothing is lost by kill -KILL {pid}", context.home.log().display())))
}

async fn refuse_running(context: &Context) -> Result<()> {
    let live: Vec<String> = workspace::all(context)
        .await?
        .into_iter()
        .filter(|info| info.state.is_live())
        .map(|info| info.name.to_string())
        .collect();
    if live.is_empty() {
        return Ok(());
    }
    let names = live.join(" ");
    Err(Error::new(ErrorCode::Conflict, format!("workspaces run on the pool: {names}"))
        .hint(format!("stop them first: pinfold stop {names}")))
}

/// Where the home's own pool file is mounted. What somebody else mounted is not ours to take away.
fn pool_mount(home: &Home) -> Result<Option<PathBuf>> {
    let Ok(file) = home.pool_file().metadata() else { return Ok(None) };
    let pool = match server::config(home)?.pool.path {
        Some(path) => path,
        None => home.path().join("pool"),
    };
    let failed = |error: io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{}: {error}", pool.display()))
    };
    let pool = match pool.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let Some(source) = source_of(&table, &pool) else { return Ok(None) };
    let device = source.strip_prefix("/dev/").unwrap_or(source);
    let backing = std::fs::read_to_string(format!("/sys/block/{device}/loop/backing_file"));
    let ours = backing.ok().and_then(|path| Path::new(path.trim_end()).metadata().ok());
    let same = ours.is_some_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()));
    Ok(same.then_some(pool))
}

/// The source of the topmost mount at `target` in a table of `proc_pid_mountinfo(5)`.
fn source_of<'a>(table: &'a str, target: &Path) -> Option<&'a str> {
    let target = target.to_str()?;
    // Written as three octal digits, the backslash first.
    let escaped = [('\\', "\\134"), (' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")]
        .iter()
        .fold(target.to_owned(), |text, (from, to)| text.replace(*from, to));
    table.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (left.split(' ').nth(4)? == escaped).then(|| right.split(' ').nth(1))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts() {
        let table = "36 35 98:0 /a /mnt/a\\040b rw master:1 - ext4 /dev/sda rw\n\
                     37 35 98:1 / /mnt/a\\040b rw - btrfs /dev/loop3 rw\n";
        assert_eq!(source_of(table, Path::new("/mnt/a b")), Some("/dev/loop3"));
        assert_eq!(source_of(table, Path::new("/mnt/a")), None);
    }
}
