//! How much goes through: a command's output, and files both ways.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    Options,
    client::{self, Connection, exec_request},
    report::Report,
    root::Root,
    workspaces::{IMAGE, pool, server},
};

/// Each measure is of one GiB, and the best of three: what is asked is what the path can carry.
pub(crate) fn measure(options: &Options, root: &Root, report: &mut Report) -> anyhow::Result<()> {
    let server = server(options, root, "");
    let socket = server.socket();
    let mib: u64 = if options.quick { 64 } else { 1024 };
    let bytes = mib << 20;
    server.pinfold(&["create", "pipes", "--image", IMAGE]).ok();

    report.section("1 GiB through a command's standard output", "at least 60 % of a plain pipe");
    let size = bytes.to_string();
    let plain = best(|| pipe(&size))?;
    let request = exec_request(&["/bin/head", "-c", &size, "/dev/zero"]);
    let ours = best(|| {
        let seen = client::stream(&socket, "/workspaces/pipes/exec", &request)?;
        ensure!(seen.bytes == bytes, "{} of {bytes} bytes came", seen.bytes);
        Ok(seen.end)
    })?;
    compare(report, "plain pipe", plain, ours, mib);

    report.section("1 GiB written to a file", "at least 60 % of a plain copy on the same disk");
    let beside = pool(&server).join("bench-file");
    let plain = best(|| copy_zeros(&beside, mib))?;
    let path = "/workspaces/pipes/files/content?path=/root/big";
    let ours = best(|| {
        let began = Instant::now();
        Connection::open(&socket)?.upload(path, bytes)?;
        Ok(began.elapsed())
    })?;
    compare(report, "plain copy", plain, ours, mib);

    report.section("1 GiB read from a file", "at least 60 % of a plain copy on the same disk");
    let plain = best(|| {
        let began = Instant::now();
        let read = std::io::copy(&mut File::open(&beside)?, &mut sink()?)?;
        ensure!(read == bytes, "a short file");
        Ok(began.elapsed())
    })?;
    let ours = best(|| {
        let began = Instant::now();
        let read = Connection::open(&socket)?.download(path)?;
        ensure!(read >= bytes, "{read} of {bytes} bytes came");
        Ok(began.elapsed())
    })?;
    compare(report, "plain read through a pipe", plain, ours, mib);
    std::fs::remove_file(&beside)?;
    server.stop();
    Ok(())
}

fn best(mut once: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Duration> {
    let mut times = [once()?, once()?, once()?];
    times.sort_unstable();
    Ok(times[0])
}

fn compare(report: &mut Report, plain_name: &str, plain: Duration, ours: Duration, mib: u64) {
    let rate = |time: Duration| {
        #[expect(clippy::cast_precision_loss, reason = "a number of MiB is small")]
        let mib = mib as f64;
        mib / time.as_secs_f64()
    };
    let part = rate(ours) / rate(plain);
    report.value(plain_name, &format!("{:.0} MiB/s", rate(plain)), "1.00");
    report.value("pinfold", &format!("{:.0} MiB/s", rate(ours)), &format!("{part:.2}"));
    report.verdict(part >= 0.6, &format!("{:.0} % of {plain_name}", part * 100.0));
}

/// The same program into a pipe that somebody empties.
fn pipe(size: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new("head")
        .args(["-c", size, "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .context("head")?;
    let mut stdout = child.stdout.take().context("it was piped")?;
    let mut buffer = vec![0; 256 << 10];
    while stdout.read(&mut buffer)? > 0 {}
    ensure!(child.wait()?.success(), "head failed");
    Ok(began.elapsed())
}

fn copy_zeros(to: &Path, mib: u64) -> anyhow::Result<Duration> {
    let block = vec![0_u8; 1 << 20];
    let began = Instant::now();
    let mut file = File::create(to)?;
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    // What a write acknowledges is on the disk.
    file.sync_all()?;
    Ok(began.elapsed())
}

/// A reader at the other end of a socket pair, as the API's reader is.
fn sink() -> anyhow::Result<std::os::unix::net::UnixStream> {
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while theirs.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(ours)
}
