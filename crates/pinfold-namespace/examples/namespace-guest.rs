//! PID 1 for this crate's tests: runs one shell line per connection. Never shipped.
//!
//! A connection sends a line of shell and shuts its writing side down; it gets the line's
//! combined output, then `\nstatus=N`. The line `@config` answers with what descriptor 4 held,
//! `@fds` with the open descriptors.

use pinfold_sys::inherit;
use std::{
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Stdio},
};

fn main() {
    let fds = std::fs::read_dir("/proc/self/fd").map_or_else(
        |error| error.to_string(),
        |entries| {
            let links = entries.flatten().map(|entry| {
                let target = std::fs::read_link(entry.path()).unwrap_or_default();
                format!("{} {}\n", entry.file_name().display(), target.display())
            });
            links.collect::<String>()
        },
    );
    let mut config = String::new();
    let read = File::from(inherit::take(4).expect("a configuration")).read_to_string(&mut config);
    let config = read.map_or_else(|error| error.to_string(), |_| config);
    let listener = UnixListener::from(inherit::take(3).expect("a listener"));
    for stream in listener.incoming().flatten() {
        let (config, fds) = (config.clone(), fds.clone());
        std::thread::spawn(move || serve(stream, &config, &fds));
    }
}

fn serve(mut stream: UnixStream, config: &str, fds: &str) {
    let mut line = String::new();
    if stream.read_to_string(&mut line).is_err() {
        return;
    }
    let answer = match line.as_str() {
        "@config" => config.to_owned(),
        "@fds" => fds.to_owned(),
        _ => shell(&line),
    };
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Both);
}

fn shell(line: &str) -> String {
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("exec 2>&1\n{line}")])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            format!("{text}\nstatus={}", output.status)
        }
        Err(error) => format!("\nstatus=not started: {error}"),
    }
}
