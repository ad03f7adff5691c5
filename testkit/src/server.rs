//! A server that runs the real binary over a home of its own.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    home::Home,
    http::{self, Reply},
    leftovers::Leftovers,
    programs::bin,
    wait::until,
};

/// Longest that a server may take to answer after its start: it makes its pool first.
const READY: Duration = Duration::from_mins(1);

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Text of `config.toml`.
    pub config: String,
    /// More environment for the server.
    pub env: Vec<(String, String)>,
    /// Words after `up --listen`; none by default, so that servers of tests do not meet.
    pub listen: Vec<String>,
    /// Where metrics are served; nowhere by default.
    pub metrics: Option<String>,
    /// Another binary than the debug build's.
    pub program: Option<PathBuf>,
}

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 and the signal's number after a signal.
    pub code: i32,
    /// Standard output, lossy UTF-8.
    pub stdout: String,
    /// Standard error, lossy UTF-8.
    pub stderr: String,
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        Self {
            code: output.status.code().or(signal.map(|n| 128 + n)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Output {
    /// The output, where the command succeeded.
    ///
    /// # Panics
    /// With everything that was printed when it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The output as JSON, where the command succeeded.
    ///
    /// # Panics
    /// When it failed or printed something else.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}"))
    }
}

/// A running `pinfold up`. Dropping it ends the server, its workspaces and all they left.
#[derive(Debug)]
pub struct Server {
    home: Home,
    options: ServerOptions,
    child: Option<Child>,
}

impl Server {
    /// Starts one on an empty home with the default configuration.
    #[must_use]
    pub fn start() -> Self {
        Self::with(ServerOptions::default())
    }

    /// Starts one on an empty home.
    #[must_use]
    pub fn with(options: ServerOptions) -> Self {
        Self::on(Home::new(), options)
    }

    /// Starts one on this home.
    ///
    /// # Panics
    /// When it does not answer in time, with what it printed.
    #[must_use]
    pub fn on(home: Home, options: ServerOptions) -> Self {
        if !options.config.is_empty() {
            home.write_config(&options.config);
        }
        let mut server = Self { home, options, child: None };
        server.spawn();
        server
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a file for what the server prints");
        let mut command = self.command();
        command
            .arg("up")
            .args(self.listen_words())
            .args(["--metrics", self.options.metrics.as_deref().unwrap_or("none")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log);
        self.child = Some(command.spawn().expect("pinfold up"));
        let socket = self.socket();
        until("the server's first answer", READY, || {
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("our child") {
                panic!("the server ended at once with {status}: {}", self.printed());
            }
            UnixStream::connect(&socket).ok()
        });
    }

    fn listen_words(&self) -> Vec<String> {
        let none = ["none".to_owned()];
        let words = if self.options.listen.is_empty() { &none[..] } else { &self.options.listen };
        words.iter().flat_map(|word| ["--listen".to_owned(), word.clone()]).collect()
    }

    /// TCP addresses that the server says it listens on, in order.
    ///
    /// # Panics
    /// When it says something else.
    pub fn tcp(&self) -> Vec<std::net::SocketAddr> {
        let urls = ["listening on http://", "listening on https://"];
        let printed = self.printed();
        let found = printed
            .lines()
            .filter_map(|line| urls.iter().find_map(|start| line.strip_prefix(start)));
        found.map(|address| address.parse().expect("an address")).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.home.beside("up.log")
    }

    /// What the server printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The home it serves.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("server.sock")
    }

    /// The server's process id.
    ///
    /// # Panics
    /// When it was killed and not started again.
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("the server was started");
        i32::try_from(child.id()).expect("a pid fits")
    }

    /// A `pinfold` command for this home, not started.
    pub fn command(&self) -> Command {
        let program = self.options.program.clone().unwrap_or_else(|| bin("pinfold"));
        let mut command = Command::new(program);
        command
            .env("PINFOLD_HOME", self.home.path())
            .env("NO_COLOR", "1")
            .envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `pinfold` with these words and an empty standard input.
    #[track_caller]
    pub fn pinfold<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        self.pinfold_with_input(words, b"")
    }

    /// Runs `pinfold` with these words and this standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn pinfold_with_input<S: AsRef<OsStr>>(&self, words: &[S], input: &[u8]) -> Output {
        let mut child = self
            .command()
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pinfold");
        let mut stdin = child.stdin.take().expect("it was piped");
        let input = input.to_vec();
        // From a thread, so that a command which prints before it reads does not stop both.
        let feeder = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("our child");
        feeder.join().expect("the feeder does not panic");
        output.into()
    }

    /// One request to the API.
    ///
    /// # Panics
    /// When there is no reply.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Reply {
        http::request(&self.socket(), method, path, body)
            .unwrap_or_else(|err| panic!("{method} {path}: {err:#}"))
    }

    /// Bytes to the socket as they are, for malformed requests.
    pub fn raw(&self, bytes: &[u8]) -> anyhow::Result<Reply> {
        http::raw(&self.socket(), bytes)
    }

    /// `kill -9` of the server; its workspaces live on.
    ///
    /// # Panics
    /// When it was killed already.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server was started");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Starts the server again after [`Server::kill`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.spawn();
    }

    /// What is on the machine now.
    pub fn leftovers(&self) -> Leftovers {
        self.home.leftovers()
    }

    /// Removes every workspace, ends the server with SIGTERM and checks that nothing is left of
    /// the workspaces: no process, no cgroup. The pool's own mount may stay for the next start.
    ///
    /// # Panics
    /// When something is left.
    pub fn stop(mut self) {
        let list = self.pinfold(&["ls", "--json"]).json();
        let items = list.get("items").unwrap_or(&list).as_array().cloned().unwrap_or_default();
        for item in items {
            let id = item["id"].as_str().expect("a workspace has an id").to_owned();
            self.pinfold(&["rm", "--force", &id]).ok();
        }
        let pid = self.pid();
        let mut child = self.child.take().expect("the server was started");
        let target = rustix::process::Pid::from_raw(pid).expect("a pid is not zero");
        rustix::process::kill_process(target, rustix::process::Signal::TERM).expect("our child");
        child.wait().expect("our child");
        let left = self.leftovers();
        let groups = left.cgroups.len() + left.cgroup_bases.len();
        assert!(left.processes.is_empty() && groups == 0, "left behind: {left:?}");
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its server printed")]
impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if std::thread::panicking() {
                eprintln!("the server printed:\n{}", self.printed());
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // What the server and its workspaces left is cleared when the home is dropped.
    }
}
