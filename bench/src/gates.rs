//! What the gates cost: the server as it is, with a token, a quota, rates and the audit log in
//! force, beside the same node behind bare handlers, in one run and in turns.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::{Home, Server, ServerOptions};

use crate::{Options, report::Report, stats::millis, ungated::WORKSPACE};

/// Connections at once.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Turns of each; the middle one of each number counts.
const ROUNDS: usize = 3;
/// Bytes of the file that is read.
const FILE_BYTES: usize = 4096;
/// Where it is.
const FILE: &str = "/var/tmp/read";
/// Rates that nobody reaches, so that what is measured is their keeping and not their limit; a
/// quota that is in force.
const RATE: &str = "{ per_second = 1000000, burst = 1000000 }";

/// What is asked, again and again.
struct Load {
    title: &'static str,
    method: &'static str,
    path: String,
    body: &'static str,
}

fn loads() -> [Load; 3] {
    let of = |rest: &str| format!("/api/v1/workspaces/{WORKSPACE}/{rest}");
    [
        Load {
            title: "no-op (`GET /server`)",
            method: "GET",
            path: "/api/v1/server".into(),
            body: "",
        },
        Load {
            title: "exec (`POST /execs` of `true`)",
            method: "POST",
            path: of("execs"),
            body: r#"{"command":{"argv":["true"]}}"#,
        },
        Load {
            title: "file read (4 KiB)",
            method: "GET",
            path: of(&format!("files/content?path={FILE}")),
            body: "",
        },
    ]
}

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    per_second: f64,
    cpu: Duration,
    p50: Duration,
    p99: Duration,
}

/// Somebody who answers: a process at an address.
struct Side {
    name: &'static str,
    address: SocketAddr,
    pid: i32,
    token: Option<String>,
}

/// Measures, unless wrk is missing.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if Command::new("wrk").arg("-v").output().is_err() {
        report.note("the gates were not measured: `make bench-setup` installs wrk".into());
        return Ok(());
    }
    let rates = ["create", "exec", "default", "login", "stream"]
        .map(|class| format!("{class} = {RATE}\n"))
        .concat();
    let server = Server::with(ServerOptions {
        config: format!("[rates.tokens]\n{rates}[rates.global]\n{rates}"),
        listen: vec!["127.0.0.1:0".into()],
        program: Some(options.pinfold.clone()),
        ..ServerOptions::default()
    });
    let gated = gated(&server)?;
    let bare = Bare::start(&server)?;
    let script = Script::write(&server)?;
    for load in &loads() {
        for connections in CONNECTIONS {
            compare(options, [&bare.side, &gated], load, connections, &script, report)?;
        }
    }
    bare.stop()?;
    server.stop();
    Ok(())
}

/// The server as it is, a workspace in it, and a token that has a quota.
fn gated(server: &Server) -> anyhow::Result<Side> {
    let token =
        json!({ "name": "bench", "quota": { "workspaces": 10, "memory_bytes": 1_u64 << 40 } });
    let made = server.api("POST", "/api/v1/tokens", Some(&token)).json();
    let token = made["token"].as_str().context("a token")?.to_owned();
    let address = *testkit::until("an address", Duration::from_secs(30), || {
        let all = server.tcp();
        (!all.is_empty()).then_some(all)
    })
    .first()
    .context("one address")?;
    let side = Side { name: "with the gates", address, pid: server.pid(), token: Some(token) };
    ask(&side, "POST", "/api/v1/workspaces", &json!({ "name": WORKSPACE }).to_string())?;
    Ok(side)
}

/// The other process.
struct Bare {
    side: Side,
    child: Child,
    stdin: ChildStdin,
    _home: Home,
}

impl Bare {
    /// Starts it on a home of its own, with the programs that the server unpacked or was built
    /// beside.
    fn start(server: &Server) -> anyhow::Result<Self> {
        let home = Home::new();
        let own = std::env::current_exe()?;
        let mut child = Command::new(&own)
            .arg("ungated")
            .arg(home.path())
            .args([program(server, "pinfold-launcher")?, program(server, "pinfold-guest")?])
            .env("PINFOLD_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| own.display().to_string())?;
        let stdin = child.stdin.take().context("it was piped")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it was piped")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the address of the server without gates")?;
        let pid = i32::try_from(child.id())?;
        let side = Side { name: "without", address, pid, token: None };
        Ok(Self { side, child, stdin, _home: home })
    }

    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        ensure!(self.child.wait()?.success(), "the server without gates failed");
        Ok(())
    }
}

/// Unpacked into the server's home by a release build; beside the program otherwise.
fn program(server: &Server, name: &str) -> anyhow::Result<PathBuf> {
    let unpacked = fs::read_dir(server.home().path().join("bin")).into_iter().flatten().flatten();
    let own = std::env::current_exe()?;
    unpacked
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)))
        .or_else(|| own.parent().map(|directory| directory.join(name)))
        .filter(|path| path.is_file())
        .with_context(|| format!("{name} is nowhere"))
}

/// What wrk runs: the request, and a line of numbers at the end.
struct Script(PathBuf);

impl Script {
    fn write(server: &Server) -> anyhow::Result<Self> {
        let path = server.home().beside("load.lua");
        let mut file = fs::File::create(&path)?;
        file.write_all(
            br#"
wrk.method = os.getenv("LOAD_METHOD")
if os.getenv("LOAD_BODY") ~= "" then
    wrk.body = os.getenv("LOAD_BODY")
    wrk.headers["Content-Type"] = "application/json"
end
if os.getenv("LOAD_TOKEN") ~= "" then
    wrk.headers["Authorization"] = "Bearer " .. os.getenv("LOAD_TOKEN")
end
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("\nnumbers %d %d %d %d %d %d\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.status,
        e.connect + e.read + e.write + e.timeout))
end
"#,
        )?;
        Ok(Self(path))
    }

    fn turn(
        &self,
        side: &Side,
        load: &Load,
        connections: usize,
        seconds: u64,
    ) -> anyhow::Result<Turn> {
        let before = cpu(side.pid)?;
        let output = Command::new("wrk")
            .args(["-t", if connections == 1 { "1" } else { "2" }])
            .args([
                "-c",
                &connections.to_string(),
                "-d",
                &format!("{seconds}s"),
                "--timeout",
                "30s",
            ])
            .arg("-s")
            .arg(&self.0)
            .arg(format!("http://{}{}", side.address, load.path))
            // Not on the command line, where every process of the machine could read it.
            .env("LOAD_TOKEN", side.token.as_deref().unwrap_or_default())
            .env("LOAD_METHOD", load.method)
            .env("LOAD_BODY", load.body)
            .output()
            .context("wrk")?;
        let used = cpu(side.pid)?.saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("numbers "));
        let numbers: Vec<u64> = line
            .with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [requests, micros, p50, p99, refused, broken] = numbers[..] else {
            anyhow::bail!("wrk: {text}");
        };
        ensure!(requests > 0 && refused == 0 && broken == 0, "{}: {text}", side.name);
        #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
        let per_second = requests as f64 / (micros as f64 / 1e6);
        Ok(Turn {
            per_second,
            cpu: used / u32::try_from(requests)?,
            p50: Duration::from_micros(p50),
            p99: Duration::from_micros(p99),
        })
    }
}

/// Both sides in turns, and a part of the table.
fn compare(
    options: &Options,
    sides: [&Side; 2],
    load: &Load,
    connections: usize,
    script: &Script,
    report: &mut Report,
) -> anyhow::Result<()> {
    let seconds = if options.quick { 1 } else { 5 };
    let mut turns: [Vec<Turn>; 2] = [Vec::new(), Vec::new()];
    for side in sides {
        prepare(side)?;
        // What is made once, and grows warm, is not measured.
        script.turn(side, load, connections, 1)?;
    }
    for _ in 0..ROUNDS {
        for (side, turns) in sides.iter().zip(&mut turns) {
            turns.push(script.turn(side, load, connections, seconds)?);
        }
    }
    let [bare, gated] = turns.map(|turns| middle(&turns));
    let more = gated.cpu.saturating_sub(bare.cpu);
    let part = gated.per_second / bare.per_second;
    let is_exec = load.path.ends_with("/execs");
    let aim = match (load.path.ends_with("/server"), is_exec && connections > 1) {
        (true, _) => "less than 50 µs of processor time more",
        (_, true) => "at least 90 % of the throughput",
        _ => "none",
    };
    report.section(
        &format!("The gates: {}, {connections} at once; ratio of throughput", load.title),
        aim,
    );
    for (side, turn, part) in [(sides[0], bare, 1.0), (sides[1], gated, part)] {
        report.cells([
            format!(
                "{}: latency; {:.0}/s, {:.1} µs of processor time each",
                side.name,
                turn.per_second,
                micros(turn.cpu)
            ),
            millis(turn.p50),
            millis(turn.p99),
            format!("{part:.2}"),
        ]);
    }
    let numbers = format!("{:.1} µs more, {:.0} % of the throughput", micros(more), part * 100.0);
    match aim {
        "none" => report.remark(&numbers),
        _ if is_exec => report.verdict(part >= 0.9, &numbers),
        _ => report.verdict(more < Duration::from_micros(50), &numbers),
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle one of each number.
fn middle(turns: &[Turn]) -> Turn {
    let of = |number: &dyn Fn(&Turn) -> f64| {
        let mut all: Vec<f64> = turns.iter().map(number).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let time = |number: &dyn Fn(&Turn) -> Duration| {
        Duration::from_secs_f64(of(&|turn| number(turn).as_secs_f64()))
    };
    Turn {
        per_second: of(&|turn| turn.per_second),
        cpu: time(&|turn| turn.cpu),
        p50: time(&|turn| turn.p50),
        p99: time(&|turn| turn.p99),
    }
}

/// The file that is read.
fn prepare(side: &Side) -> anyhow::Result<()> {
    let line = format!("head -c {FILE_BYTES} /dev/zero >{FILE}");
    let body = json!({ "command": { "shell": line } }).to_string();
    ask(side, "POST", &format!("/api/v1/workspaces/{WORKSPACE}/execs"), &body)?;
    let path = format!("/api/v1/workspaces/{WORKSPACE}/files/content?path={FILE}");
    testkit::until("the file", Duration::from_secs(30), || ask(side, "GET", &path, "").ok());
    Ok(())
}

fn ask(side: &Side, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let stream = std::net::TcpStream::connect(side.address)?;
    let credential = side.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        &stream,
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        side.address,
        credential.unwrap_or_default(),
        body.len()
    )?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    ensure!(line.contains(" 201 ") || line.contains(" 200 "), "{method} {path}: {line}");
    Ok(())
}

/// Processor time that a process has used, in steps of 10 ms.
fn cpu(pid: i32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(Path::new(&path)).context(path)?;
    let fields = text.rsplit(')').next().context("a process has a name")?;
    // proc_pid_stat(5): fields 14 and 15, of which the first here is the third.
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u64>().unwrap_or_default())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}
