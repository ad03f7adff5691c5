//! As an ordinary user: giving files to the user's sub-ids, reading and removing such files.
//!
//! Only a process inside a user namespace with these ids mapped may do that. `unshare(1)` makes
//! one, `newuidmap(1)` and `newgidmap(1)` map it, and coreutils do the work. Inside, 0 is the
//! user and n + 1 is the n-th sub-id, which a workspace sees as n.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use pinfold_types::{
    Error, ErrorCode,
    subids::{SUB_IDS, sub_id_mend, sub_id_range},
};

use crate::{
    error::{ImageError, Result},
    files,
    layer::Draft,
    unpack::place::FORGET,
};

/// Most names that an archive may use twice: what it says of the first is to be forgotten.
const MAX_REPLACED: usize = 100_000;
/// Kept of what a helper says.
const MAX_SAID: u64 = 4096;

const APPLY: &str = "echo ready; read -r go; cd \"$1\" || exit 1\n\
for list in \"$2\"/own.*; do\n  [ -e \"$list\" ] || continue\n  owner=${list##*/own.}\n  \
xargs -0 -r -a \"$list\" chown -h \"$owner\" -- || exit 1\ndone\n\
for list in \"$2\"/mode.*; do\n  [ -e \"$list\" ] || continue\n  \
xargs -0 -r -a \"$list\" chmod \"${list##*.}\" -- || exit 1\ndone\n";
/// Sorted, with the attributes that layers keep and overlayfs' own marks. Sockets are left out.
const READ: &str = "echo ready; read -r go; \
exec tar --create --format=posix --numeric-owner --sort=name --xattrs --xattrs-include='user.*' \
--warning=no-file-ignored --directory=\"$1\" --file=- .\n";
const REMOVE: &str = "echo ready; read -r go; exec rm -rf -- \"$1\"\n";

/// Sets the owners that unpacking wrote to `log`: `uid gid mode path NUL`, modes in octal or `-`.
pub(crate) fn apply_owners(tree: &Path, log: &Path) -> Result<()> {
    let lists = log.with_extension("lists");
    files::make_dir(&lists, 0o700)?;
    let mut out: BTreeMap<String, BufWriter<File>> = BTreeMap::new();
    let replaced = replaced(log)?;
    let mut at = 0_u64;
    let mut reader = BufReader::new(File::open(log).map_err(ImageError::io("open", log))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let got = reader.read_until(0, &mut line).map_err(ImageError::io("read", log))?;
        if got == 0 {
            break;
        }
        at += got as u64;
        if line.starts_with(FORGET) {
            continue;
        }
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut next = || {
            let part = parts.next().unwrap_or_default();
            String::from_utf8_lossy(part).into_owned()
        };
        let (uid, gid, mode) = (next(), next(), next());
        let path = parts.next().unwrap_or_default();
        if is_forgotten(&replaced, path, at) {
            continue;
        }
        let inside =
            |id: &str| id.parse::<u32>().ok().filter(|id| *id < SUB_IDS).unwrap_or(65_534) + 1;
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

/// Where in the log each name was last replaced by something else.
fn replaced(log: &Path) -> Result<BTreeMap<Vec<u8>, u64>> {
    let mut found = BTreeMap::new();
    let mut reader = BufReader::new(File::open(log).map_err(ImageError::io("open", log))?);
    let (mut line, mut at) = (Vec::new(), 0);
    loop {
        line.clear();
        let got = reader.read_until(0, &mut line).map_err(ImageError::io("read", log))?;
        if got == 0 {
            return Ok(found);
        }
        at += got as u64;
        if let Some(path) = line.strip_prefix(FORGET) {
            found.insert(without_nul(path).to_vec(), at);
            if found.len() > MAX_REPLACED {
                return Err(ImageError::Limit(format!(
                    "the archive has more than {MAX_REPLACED} names twice"
                )));
            }
        }
    }
}

/// Whether `path` or a directory above it was replaced after the line that ends at `at`.
fn is_forgotten(replaced: &BTreeMap<Vec<u8>, u64>, path: &[u8], at: u64) -> bool {
    let path = without_nul(path);
    let later = |part: &[u8]| replaced.get(part).is_some_and(|replaced| *replaced > at);
    !replaced.is_empty()
        && (later(path) || (0..path.len()).any(|end| path[end] == b'/' && later(&path[..end])))
}

fn without_nul(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"\0").unwrap_or(path)
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

/// A tree as a tar stream with the ids that [`inside_of_helper`] translates.
pub(crate) fn read_tree(tree: &Path) -> Result<Helper> {
    Helper::start(READ, &[tree])
}

/// The workspace's id for one in a stream of [`read_tree`]. What is the user's own is root's.
pub(crate) const fn inside_of_helper(id: u32) -> u32 {
    id.saturating_sub(1)
}

/// The workspace's id for one on the disk.
pub(crate) fn inside(id: u32) -> u32 {
    if rustix::process::geteuid().is_root() {
        return id;
    }
    base().ok().and_then(|base| id.checked_sub(base)).filter(|id| *id < SUB_IDS).unwrap_or(0)
}

/// Runs a script in a user namespace with the sub-ids mapped.
fn run(script: &str, arguments: &[&Path]) -> Result<()> {
    let mut helper = Helper::start(script, arguments)?;
    io::copy(&mut helper, &mut io::sink()).map_err(ImageError::io("read from", "unshare"))?;
    helper.finish()
}

/// A process in a user namespace with the sub-ids mapped; what it writes is read from it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: Option<JoinHandle<String>>,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Read for Helper {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(buffer)
    }
}

impl Helper {
    fn start(script: &str, arguments: &[&Path]) -> Result<Self> {
        let base = base()?;
        let mut child = Command::new("unshare")
            .args(["--user", "--", "sh", "-c", script, "sh"])
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|err| missing("unshare", "util-linux", &err))?;
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = child.stderr.take().expect("it is piped");
        let said = std::thread::spawn(move || listen(stderr));
        let mut helper = Self { child, stdout, said: Some(said) };
        helper.map(base)?;
        Ok(helper)
    }

    /// Maps the ids once the namespace is there, then lets the script go on.
    fn map(&mut self, base: u32) -> Result<()> {
        let mut ready = String::new();
        (&mut self.stdout)
            .take(64)
            .read_line(&mut ready)
            .map_err(ImageError::io("read from", "unshare"))?;
        if ready != "ready\n" {
            return Err(ImageError::Public(Box::new(
                Error::new(ErrorCode::Unavailable, "this user may not make user namespaces")
                    .hint("`pinfold doctor` says what this machine lacks for ordinary users"),
            )));
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for (program, own) in [("newuidmap", uid), ("newgidmap", gid)] {
            let status = Command::new(program)
                .arg(self.child.id().to_string())
                .args(["0", &own.to_string(), "1"])
                .args(["1", &base.to_string(), &SUB_IDS.to_string()])
                .stdin(Stdio::null())
                .status()
                .map_err(|err| missing(program, "uidmap", &err))?;
            if !status.success() {
                return Err(ImageError::Public(Box::new(
                    Error::new(ErrorCode::Unavailable, format!("{program} refused the sub-ids"))
                        .hint(format!(
                            "see that /etc/subuid and /etc/subgid give this user {SUB_IDS} ids \
                             each"
                        )),
                )));
            }
        }
        let mut stdin = self.child.stdin.take().expect("it is piped");
        stdin.write_all(b"go\n").map_err(ImageError::io("write to", "unshare"))
    }

    /// Waits for its end, to be called when everything was read.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().map_err(ImageError::io("wait for", "unshare"))?;
        if status.success() {
            return Ok(());
        }
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        Err(ImageError::Public(Box::new(
            Error::new(ErrorCode::Unavailable, "cannot work on files of this user's sub-ids")
                .hint("`pinfold doctor` says what this machine lacks for ordinary users")
                .context(said.trim()),
        )))
    }
}

/// Reads all that a helper says, and keeps the first of it.
fn listen(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    let _ = (&mut stderr).take(MAX_SAID).read_to_end(&mut said);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&said).into_owned()
}

fn missing(program: &str, package: &str, err: &std::io::Error) -> ImageError {
    ImageError::Public(Box::new(
        Error::new(ErrorCode::Unavailable, format!("cannot run {program}"))
            .hint(format!("apt-get install {package}"))
            .context(err),
    ))
}

/// First of the user's sub-ids.
fn base() -> Result<u32> {
    let uid = rustix::process::getuid().as_raw();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    sub_id_range(&passwd, &read("/etc/subuid"), &read("/etc/subgid"), uid)
        .map(|range| range.base)
        .ok_or_else(|| {
            let what = format!(
                "/etc/subuid and /etc/subgid give user {uid} no common range of {SUB_IDS} ids"
            );
            ImageError::Public(Box::new(
                Error::new(ErrorCode::Unavailable, what).hint(sub_id_mend(&passwd, uid)),
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_later_is_forgotten_with_all_below_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("owners");
        let lines = ["0 0 755 a/f", "x x x a", "0 0 - a", "0 0 644 ab/f", "x x x g", "0 0 644 g"];
        fs::write(&log, lines.map(|line| format!("{line}\0")).concat()).expect("a log");
        let replaced = replaced(&log).expect("reads");
        let mut at = 0;
        let kept: Vec<&str> = lines
            .into_iter()
            .filter(|line| {
                at += line.len() as u64 + 1;
                let path = line.splitn(4, ' ').nth(3).expect("a path");
                !line.starts_with('x') && !is_forgotten(&replaced, path.as_bytes(), at)
            })
            .collect();
        assert_eq!(kept, ["0 0 - a", "0 0 644 ab/f", "0 0 644 g"]);
    }
}
