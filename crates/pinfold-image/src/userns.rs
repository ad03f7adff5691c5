//! As an ordinary user: giving files to the user's sub-ids, and removing such files.
//!
//! Only a process inside a user namespace with these ids mapped may do that. `unshare(1)` makes
//! one, `newuidmap(1)` and `newgidmap(1)` map it, and coreutils do the work. Inside, 0 is the
//! user and n + 1 is the n-th sub-id, which a workspace sees as n.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use pinfold_types::{Error, ErrorCode};

use crate::{
    error::{ImageError, Result},
    files,
    layer::Draft,
};

/// Ids of a workspace.
const IDS: u32 = 65_536;

const APPLY: &str = "echo ready; read -r go; cd \"$1\" || exit 1\n\
for list in \"$2\"/own.*; do\n  [ -e \"$list\" ] || continue\n  owner=${list##*/own.}\n  \
xargs -0 -r -a \"$list\" chown -h \"$owner\" -- || exit 1\ndone\n\
for list in \"$2\"/mode.*; do\n  [ -e \"$list\" ] || continue\n  \
xargs -0 -r -a \"$list\" chmod \"${list##*.}\" -- || exit 1\ndone\n";
const REMOVE: &str = "echo ready; read -r go; exec rm -rf -- \"$1\"\n";

/// Sets the owners that unpacking wrote to `log`: `uid gid mode path NUL`, modes in octal or `-`.
pub(crate) fn apply_owners(tree: &Path, log: &Path) -> Result<()> {
    let lists = log.with_extension("lists");
    files::make_dir(&lists, 0o700)?;
    let mut out: BTreeMap<String, BufWriter<File>> = BTreeMap::new();
    let mut reader = BufReader::new(File::open(log).map_err(ImageError::io("open", log))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let got = reader.read_until(0, &mut line).map_err(ImageError::io("read", log))?;
        if got == 0 {
            break;
        }
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut next = || {
            let part = parts.next().unwrap_or_default();
            String::from_utf8_lossy(part).into_owned()
        };
        let (uid, gid, mode) = (next(), next(), next());
        let path = parts.next().unwrap_or_default();
        let inside = |id: &str| id.parse::<u32>().ok().filter(|id| *id < IDS).unwrap_or(65_534) + 1;
        let mut add = |name: String| -> Result<()> {
            let file = lists.join(&name);
            if !out.contains_key(&name) {
                let created = File::create(&file).map_err(ImageError::io("write", &file))?;
                out.insert(name.clone(), BufWriter::new(created));
            }
            let writer = out.get_mut(&name).expect("just put there");
            writer
                .write_all(b"./")
                .and_then(|()| writer.write_all(path))
                .map_err(ImageError::io("write", &file))
        };
        add(format!("own.{}:{}", inside(&uid), inside(&gid)))?;
        // chown clears set-id bits, and modes of directories were kept for last.
        if mode != "-" {
            add(format!("mode.{mode}"))?;
        }
    }
    for (name, mut writer) in out {
        writer.flush().map_err(ImageError::io("write", lists.join(name)))?;
    }
    run(APPLY, &[tree, &lists])?;
    files::remove_tree(&lists)
}

/// Gives a tree that this user made to the workspaces' root.
pub(crate) fn give_to_root(draft: &Draft) -> Result<()> {
    let (tree, log) = (draft.tree(), draft.owners());
    let mut out = BufWriter::new(File::create(&log).map_err(ImageError::io("write", &log))?);
    let mut open = vec![tree.clone()];
    let mut add = |path: &Path| -> Result<bool> {
        let facts = fs::symlink_metadata(path).map_err(ImageError::io("look at", path))?;
        let inside = path.strip_prefix(&tree).expect("below the tree");
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let mode = if facts.is_dir() || facts.is_file() {
            format!("{:o}", facts.mode() & 0o7777)
        } else {
            "-".into()
        };
        write!(out, "0 0 {mode} ")
            .and_then(|()| out.write_all(inside.as_os_str().as_bytes()))
            .and_then(|()| out.write_all(b"\0"))
            .map_err(ImageError::io("write", &log))?;
        Ok(facts.is_dir())
    };
    add(&tree)?;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(ImageError::io("read", &dir))? {
            let path = entry.map_err(ImageError::io("read", &dir))?.path();
            if add(&path)? {
                open.push(path);
            }
        }
    }
    out.flush().map_err(ImageError::io("write", &log))?;
    drop(out);
    apply_owners(&tree, &log)
}

/// Removes a tree that holds files of sub-ids.
pub(crate) fn remove(path: &Path) -> Result<()> {
    run(REMOVE, &[path])
}

/// Runs a script in a user namespace with the sub-ids mapped.
fn run(script: &str, arguments: &[&Path]) -> Result<()> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let bases = [range("/etc/subuid", uid)?, range("/etc/subgid", uid)?];
    let mut child = Command::new("unshare")
        .args(["--user", "--", "sh", "-c", script, "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| missing("unshare", "util-linux", &err))?;
    let done = drive(&mut child, [uid, gid], bases);
    if done.is_err() {
        // It waits for a word that will not come.
        let _ = child.kill();
    }
    let status = child.wait().map_err(ImageError::io("wait for", "unshare"))?;
    done?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    if let Some(stderr) = child.stderr {
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    Err(ImageError::Public(Box::new(
        Error::new(ErrorCode::Unavailable, "cannot give files to this user's sub-ids")
            .hint("`pinfold doctor` says what this machine lacks for ordinary users")
            .context(text.trim()),
    )))
}

fn drive(child: &mut Child, own: [u32; 2], bases: [u32; 2]) -> Result<()> {
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout.take(64))
        .read_line(&mut ready)
        .map_err(ImageError::io("read from", "unshare"))?;
    if ready != "ready\n" {
        return Err(ImageError::Public(Box::new(
            Error::new(ErrorCode::Unavailable, "this user may not make user namespaces")
                .hint("`pinfold doctor` says what this machine lacks for ordinary users"),
        )));
    }
    let count = IDS.to_string();
    for (at, program) in ["newuidmap", "newgidmap"].into_iter().enumerate() {
        let (own, base) = (own[at], bases[at]);
        let status = Command::new(program)
            .arg(child.id().to_string())
            .args(["0", &own.to_string(), "1"])
            .args(["1", &base.to_string(), &count])
            .stdin(Stdio::null())
            .status()
            .map_err(|err| missing(program, "uidmap", &err))?;
        if !status.success() {
            return Err(ImageError::Public(Box::new(
                Error::new(ErrorCode::Unavailable, format!("{program} refused the sub-ids"))
                    .hint("see that /etc/subuid and /etc/subgid give this user 65536 ids each"),
            )));
        }
    }
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"go\n").map_err(ImageError::io("write to", "unshare"))
}

fn missing(program: &str, package: &str, err: &std::io::Error) -> ImageError {
    ImageError::Public(Box::new(
        Error::new(ErrorCode::Unavailable, format!("cannot run {program}"))
            .hint(format!("apt-get install {package}"))
            .context(err),
    ))
}

/// First id of the user's range in `/etc/subuid` or `/etc/subgid` (subuid(5)).
fn range(path: &str, uid: u32) -> Result<u32> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let base = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let ours = Some(owner) == name || owner.parse() == Ok(uid);
            (ours && count >= IDS).then_some(base)
        })
        .ok_or_else(|| {
            ImageError::Public(Box::new(
                Error::new(
                    ErrorCode::Unavailable,
                    format!("{path} gives user {uid} no range of {IDS} ids"),
                )
                .hint(format!(
                    "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
                    name.unwrap_or("USER")
                )),
            ))
        })
}
