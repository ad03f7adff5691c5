//! Snapshots and forks, on each kind of pool, beside the plain command that does the same copy.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::Server;

use crate::{
    Options,
    client::Connection,
    floor::Floor,
    report::Report,
    root::Root,
    stats::{Times, millis, ratio},
    timer,
    workspaces::{IMAGE, pool, server},
};

/// Fills a directory: 1,000 MB in 20,000 files, in a workspace with nothing but a shell and dd.
const FILL: &str = "i=0; mkdir -p /data; dd if=/dev/urandom of=/data/seed bs=50k count=1 2>/dev/null; \
    while [ $i -lt $FILES ]; do d=/data/$((i / 200)); [ -d $d ] || mkdir $d; cat /data/seed > $d/$i; i=$((i + 1)); done; sync";

/// An XFS filesystem with reflinks in a loop file.
#[derive(Debug)]
struct Xfs {
    directory: tempfile::TempDir,
}

impl Xfs {
    fn make() -> anyhow::Result<Self> {
        let xfs = Self { directory: tempfile::Builder::new().prefix("pf-bench-xfs-").tempdir()? };
        let file = xfs.directory.path().join("xfs");
        std::fs::File::create(&file)?.set_len(16 << 30)?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &file.display().to_string()])?;
        std::fs::create_dir(xfs.mount())?;
        let (file, mount) = (file.display().to_string(), xfs.mount().display().to_string());
        // Not every kernel has quotas for XFS; what is measured does not need them.
        if run("mount", &["-o", "loop,prjquota", &file, &mount]).is_err() {
            run("mount", &["-o", "loop", &file, &mount])?;
        }
        Ok(xfs)
    }

    fn mount(&self) -> PathBuf {
        self.directory.path().join("mount")
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", &self.mount().display().to_string()]);
    }
}

fn run(program: &str, words: &[&str]) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    let took = began.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {stderr}", words.join(" "));
    Ok(took)
}

/// A workspace named `full` with the data in it.
fn fill(options: &Options, server: &Server) {
    let files = if options.quick { "500" } else { "20000" };
    server.pinfold(&["create", "full", "--image", IMAGE]).ok();
    let script = format!("FILES={files}; {FILL}");
    server.pinfold(&["exec", "full", "--", "/bin/sh", "-c", &script]).ok();
}

fn snapshots(server: &Server, count: usize) -> anyhow::Result<Times> {
    let mut connection = Connection::open(&server.socket())?;
    let mut times = Vec::new();
    for run in 0..count {
        let body = json!({ "name": format!("s{run}") });
        let began = Instant::now();
        connection.call("POST", "/workspaces/full/snapshots", Some(&body))?;
        times.push(began.elapsed());
    }
    Ok(Times::new(times))
}

/// A snapshot of a workspace that runs.
pub(crate) fn snapshot(options: &Options, root: &Root, report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "Disk snapshot of a running workspace, 1 GB in 20,000 files, on btrfs",
        "at most 5 ms",
    );
    let count = options.runs(20);
    let btrfs = server(options, root, "[pool]\nkind = \"btrfs-loop\"\nloop_bytes = 34359738368\n");
    fill(options, &btrfs);
    let plain = btrfs_command(&pool(&btrfs), count);
    match plain {
        Ok(times) => report.times("btrfs subvolume snapshot, the command", &times),
        Err(err) => report.note(format!("the plain btrfs snapshot failed: {err:#}")),
    }
    let ours = snapshots(&btrfs, count)?;
    report.times("pinfold, over the server's socket", &ours);
    report.verdict(ours.median() <= Duration::from_millis(5), &millis(ours.median()));
    btrfs.stop();

    report.section("The same on XFS with reflinks", "at most 1.3 × `cp -a --reflink`");
    let xfs = Xfs::make()?;
    let config = format!("[pool]\nkind = \"reflink\"\npath = \"{}\"\n", xfs.mount().display());
    let reflink = server(options, root, &config);
    fill(options, &reflink);
    let copy = copies(&xfs.mount(), "always", options.runs(10))?;
    report.times("cp -a --reflink=always", &copy);
    let ours = snapshots(&reflink, options.runs(10))?;
    report.times("pinfold, over the server's socket", &ours);
    let part = ratio(ours.median(), copy.median());
    report.verdict(part <= 1.3, &format!("{part:.2} × cp --reflink"));
    reflink.stop();
    drop(xfs);

    report.section("The same on a plain filesystem", "the cost is stated by `pinfold doctor`");
    let plain = server(options, root, "[pool]\nkind = \"plain\"\n");
    fill(options, &plain);
    report.times("cp -a", &copies(&pool(&plain), "never", options.runs(5))?);
    report.times("pinfold, over the server's socket", &snapshots(&plain, options.runs(5))?);

    report.section("Disk snapshot of a stopped workspace on a plain filesystem", "at most 5 ms");
    let count = options.runs(10);
    let copy = copies(&pool(&plain), "never", options.runs(3))?;
    report.times("cp -a of what is sealed first", &copy);
    let ours = sealings(&plain, count)?;
    report.times("pinfold, over the server's socket", &ours);
    report.verdict(ours.median() <= Duration::from_millis(5), &millis(ours.median()));
    plain.stop();
    Ok(())
}

/// Snapshots of the workspace named `full`, stopped, with something new to be sealed each time;
/// the first seals all of its data.
fn sealings(server: &Server, count: usize) -> anyhow::Result<Times> {
    let mut connection = Connection::open(&server.socket())?;
    let mut times = Vec::new();
    for run in 0..count {
        server.pinfold(&["stop", "full"]).ok();
        // What the stop has yet to write is not the snapshot's cost.
        timer::pause();
        let body = json!({ "name": format!("sealed{run}") });
        let began = Instant::now();
        let made = connection.call("POST", "/workspaces/full/snapshots", Some(&body))?;
        times.push(began.elapsed());
        ensure!(made["method"] == "sealed layer", "it was not sealed: {made}");
        server.pinfold(&["start", "full"]).ok();
        server.pinfold(&["exec", "full", "--", "/bin/sh", "-c", "echo new > /data/new"]).ok();
    }
    Ok(Times::new(times))
}

/// The directory in a pool that holds the most: the disk that was filled.
fn filled_disk(pool: &Path) -> anyhow::Result<PathBuf> {
    let mut open = vec![pool.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.join("data/seed").is_file() {
                // The disk is the directory above `upper/0`.
                return path
                    .ancestors()
                    .nth(2)
                    .map(Path::to_path_buf)
                    .context("upper/0 has a disk");
            }
            if entry.file_type()?.is_dir() {
                open.push(path);
            }
        }
    }
    anyhow::bail!("no disk in {} holds the data", pool.display())
}

fn btrfs_command(pool: &Path, count: usize) -> anyhow::Result<Times> {
    let disk = filled_disk(pool)?.display().to_string();
    let mut times = Vec::new();
    for run_number in 0..count {
        let to = pool.join(format!("bench-{run_number}")).display().to_string();
        times.push(run("btrfs", &["subvolume", "snapshot", "-r", &disk, &to])?);
        run("btrfs", &["subvolume", "delete", &to])?;
    }
    Ok(Times::new(times))
}

fn copies(pool: &Path, reflink: &str, count: usize) -> anyhow::Result<Times> {
    let disk = filled_disk(pool)?.display().to_string();
    let to = pool.join("bench-copy");
    let mut times = Vec::new();
    for _ in 0..count {
        let option = format!("--reflink={reflink}");
        times.push(run("cp", &["-a", &option, &disk, &to.display().to_string()])?);
        std::fs::remove_dir_all(&to)?;
    }
    Ok(Times::new(times))
}

/// Children of a workspace that runs.
pub(crate) fn fork(
    options: &Options,
    root: &Root,
    floor: &Floor,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = server(options, root, "");
    let socket = server.socket();
    server.pinfold(&["create", "source", "--image", IMAGE]).ok();
    server.pinfold(&["exec", "source", "--", "/bin/sh", "-c", "echo kept > /root/file"]).ok();
    let mut connection = Connection::open(&socket)?;

    report.section("Fork of a running workspace, to the child's first output", "at most 5 ms");
    report.first("floor program, without a disk to copy", &floor.create(options.runs(50))?);
    let mut times = Vec::new();
    for _ in 0..options.runs(50) {
        timer::pause();
        let began = Instant::now();
        let reply = connection.call("POST", "/workspaces/source/fork", Some(&json!({})))?;
        let id = children(&reply)?.pop().context("a fork has a child")?;
        let path = format!("/workspaces/{id}/exec");
        let request = crate::client::exec_request(&["/bin/cat", "/root/file"]);
        let before = began.elapsed();
        let seen = crate::client::stream(&socket, &path, &request)?;
        ensure!(seen.bytes == 5, "the child does not have its parent's file");
        times.push(before + seen.first);
        connection.call("DELETE", &format!("/workspaces/{id}"), None)?;
    }
    let ours = Times::new(times);
    report.times("pinfold", &ours);
    report.verdict(ours.median() <= Duration::from_millis(5), &millis(ours.median()));

    report.section("100 forks of a running workspace, all started", "at most 250 ms");
    let mut times = Vec::new();
    for _ in 0..options.runs(5) {
        let burst = floor.burst(100, 1)?;
        times.push(burst.first.longest());
    }
    report.times("floor program, 100 at once, until the last has begun", &Times::new(times));
    let mut times = Vec::new();
    for _ in 0..options.runs(5) {
        timer::pause();
        let began = Instant::now();
        let reply =
            connection.call("POST", "/workspaces/source/fork", Some(&json!({ "count": 100 })))?;
        times.push(began.elapsed());
        let children = children(&reply)?;
        ensure!(children.len() == 100, "{} children of 100", children.len());
        for id in children {
            connection.call("DELETE", &format!("/workspaces/{id}"), None)?;
        }
    }
    let ours = Times::new(times);
    report.times("pinfold", &ours);
    report.verdict(ours.median() <= Duration::from_millis(250), &millis(ours.median()));
    server.stop();
    Ok(())
}

/// Ids of the children in a fork's reply, wherever the list stands.
fn children(reply: &serde_json::Value) -> anyhow::Result<Vec<String>> {
    let list = ["items", "children", "outcomes"]
        .iter()
        .find_map(|key| reply.get(*key))
        .unwrap_or(reply)
        .as_array()
        .with_context(|| format!("not a list of children: {reply}"))?;
    list.iter()
        .map(|child| {
            let id = child["workspace"]["id"].as_str();
            id.map(str::to_owned).with_context(|| format!("a child failed: {child}"))
        })
        .collect()
}
