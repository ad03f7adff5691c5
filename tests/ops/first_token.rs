//! The first start that other machines can reach makes a token (AUTH-03), and gives it to nobody
//! but who started it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Home, until};

const LOCAL_CA: &str = "[server]\ntls = \"local-ca\"\nlog = \"debug\"\n";
const UP: [&str; 5] = ["up", "--metrics", "none", "--listen", "0.0.0.0:0"];

fn home() -> Home {
    let home = Home::new();
    home.write_config(LOCAL_CA);
    home
}

fn pinfold(home: &Path) -> Command {
    let mut command = Command::new(testkit::bin("pinfold"));
    command.env("PINFOLD_HOME", home).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(home: &Path, words: &[&str]) -> Output {
    pinfold(home).args(words).output().expect("it starts")
}

/// Standard output of a command that succeeds.
#[track_caller]
fn ok(home: &Path, words: &[&str]) -> String {
    let done = run(home, words);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("text")
}

fn end(child: &mut Child, pid: i32) {
    kill_process(Pid::from_raw(pid).expect("not zero"), Signal::TERM).expect("ours");
    child.wait().expect("our child");
}

/// A server without a terminal, and the file with all that it prints.
struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    fn start(home: &Home, more: &[&str]) -> Self {
        let log = home.beside("up.log");
        let to = File::create(&log).expect("a log");
        let child = pinfold(home.path())
            .args(UP)
            .args(more)
            .stdout(to.try_clone().expect("a descriptor"))
            .stderr(to)
            .spawn()
            .expect("it starts");
        let mut up = Self { child, log };
        until("the server's socket", Duration::from_mins(1), || {
            let ended = up.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{}", up.printed());
            UnixStream::connect(home.path().join("server.sock")).ok()
        });
        until("its address", Duration::from_mins(1), || {
            up.printed().contains("listening on https://").then_some(())
        });
        up
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        end(&mut self.child, pid);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A server on a terminal, which script(1) makes.
struct OnTerminal {
    child: Child,
    shown: Receiver<Vec<u8>>,
    text: String,
}

impl OnTerminal {
    fn start(home: &Home) -> Self {
        let program = testkit::bin("pinfold");
        let line = format!("exec {} {}", program.display(), UP.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
            .env("PINFOLD_HOME", home.path())
            .env("NO_COLOR", "1")
            // Held open: its end would be typed as one.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script of the package bsdutils");
        let mut reader = child.stdout.take().expect("piped");
        let (send, shown) = sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, shown, text: String::new() }
    }

    /// Waits until this is shown, and gives what came before it.
    #[track_caller]
    fn until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.text.find(wanted) {
                return self.text.drain(..at + wanted.len()).collect();
            }
            let Ok(more) = self.shown.recv_timeout(Duration::from_mins(1)) else {
                panic!("{wanted:?} was never shown, only {:?}", self.text);
            };
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Ends the server, and gives all that was shown meanwhile.
    fn stop(mut self, home: &Home) -> String {
        let lock = fs::read_to_string(home.path().join("server.lock")).expect("its lock");
        let pid = lock.split_whitespace().next().and_then(|word| word.parse().ok());
        end(&mut self.child, pid.expect("a pid"));
        while let Ok(more) = self.shown.recv() {
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
        std::mem::take(&mut self.text)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The URL that a server says it can be reached at, by this machine.
fn url(printed: &str) -> String {
    let after = printed.split("listening on https://0.0.0.0:").nth(1).expect("it says where");
    let port: u16 = after.split_whitespace().next().expect("a port").parse().expect("a port");
    format!("https://127.0.0.1:{port}")
}

#[track_caller]
fn stands(home: &Home, url: &str, token: &str) {
    let pin = ok(home.path(), &["ca", "show"]);
    let nobody = Home::new();
    let mut command = pinfold(nobody.path());
    command.env("PINFOLD_SERVER", url).env("PINFOLD_TOKEN", token);
    command.env("PINFOLD_CA_PIN", pin.trim()).args(["whoami", "--json"]);
    let said = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains("\"first\""), "{said:?}");
}

/// Files below a directory that hold this text.
fn with_text(directory: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        // The pool is the disks', and may be large.
        if kind.is_dir() && entry.file_name() != "pool" {
            with_text(&entry.path(), text, found);
        } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() < 64 << 20) {
            let bytes = fs::read(entry.path()).expect("a file");
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
}

#[test]
fn the_first_start_shows_a_token_on_its_terminal_once() {
    let home = home();
    let mut first = OnTerminal::start(&home);
    let before = first.until("shown only now:");
    assert!(!before.contains("pf_"), "{before}");
    let told = first.until("ends it and what was made of it");
    let token = told.split_whitespace().find(|word| word.starts_with("pf_")).expect("a token");
    let token = token.to_owned();
    let told = first.until("listening on https://0.0.0.0:");
    let port = first.until("\n");
    assert!(!told.contains(&token), "shown twice");
    stands(&home, &format!("https://127.0.0.1:{}", port.trim()), &token);
    // Nothing of the home holds its text or its secret part: the store has a hash.
    let secret = token.rsplit('_').next().expect("a part").to_owned();
    let mut found = Vec::new();
    with_text(home.path(), &secret[..32], &mut found);
    assert!(found.is_empty(), "{found:?}");
    let rest = first.stop(&home);
    assert!(!rest.contains(&secret), "{rest}");

    // Not the first any more: nobody needs a terminal, and nothing is shown.
    let again = Up::start(&home, &[]);
    assert!(!again.printed().contains("pf_"), "{}", again.printed());
    stands(&home, &url(&again.printed()), &token);
    again.stop();
}

#[test]
fn without_a_terminal_it_goes_to_a_new_private_file_or_nowhere() {
    let home = home();
    let said = run(home.path(), &UP);
    assert_eq!(said.status.code(), Some(9), "{said:?}");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("--first-token FILE") && !text.contains("pf_"), "{text}");

    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("token");
    let words = ["--first-token", file.to_str().expect("text")];
    // One that is there is somebody's, and may be open to others.
    fs::write(&file, "mine").expect("written");
    let refused = run(home.path(), &[&UP[..], &words[..]].concat());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("cannot be written to"), "{text}");
    assert_eq!(fs::read_to_string(&file).expect("as it was"), "mine");
    fs::remove_file(&file).expect("removed");

    let server = Up::start(&home, &words);
    let mode = fs::metadata(&file).expect("it was made").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let text = fs::read_to_string(&file).expect("a token");
    let token = text.trim();
    assert!(token.starts_with("pf_") && text.lines().count() == 1);
    let printed = server.printed();
    assert!(!printed.contains("pf_"), "{printed}");
    stands(&home, &url(&printed), token);
    let tokens = ok(home.path(), &["token", "ls", "--json"]);
    assert_eq!(tokens.matches("\"first\"").count(), 1, "{tokens}");
    // It is in the audit log as made by the owner, without its text.
    let events = ok(home.path(), &["audit", "tail", "--json"]);
    assert!(events.contains("token.create") && !events.contains("pf_"), "{events}");
    server.stop();

    // The same words again, as of a service: the file is left as it is, and no token is made.
    fs::write(&file, "moved away").expect("written");
    let again = Up::start(&home, &words);
    assert_eq!(fs::read_to_string(&file).expect("as it was"), "moved away");
    let tokens = ok(home.path(), &["token", "ls", "--json"]);
    assert_eq!(tokens.matches("\"first\"").count(), 1, "{tokens}");
    again.stop();
}
