//! Shells: size, keys, signals, exit codes, and a server that is killed under them.

use rustix::process::Signal;
use testkit::Server;

use crate::{
    program::{pinfold, run},
    pty::OnTerminal,
};

#[test]
fn a_shell_feels_like_a_terminal() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "sh"]).ok();
    let mut shell = OnTerminal::start(home, &["shell", "sh"], (91, 33));
    shell.keys("stty size; tty; echo $TERM\r");
    shell.expect("33 91");
    shell.expect("/dev/pts/");
    shell.expect("xterm");
    shell.resize(100, 40);
    // The new size is on its way while we type: asked until it has arrived.
    shell.keys("until stty size | grep -q '40 100'; do :; done; echo si''zed\r");
    shell.expect("sized");
    // Ctrl-C reaches the command, not us; so does Ctrl-D the shell.
    // One process group from its first word on, so that the key cannot come too early.
    shell.keys("sh -c 'echo wait\"\"ing; exec sleep 600'\r");
    shell.expect("waiting");
    shell.keys("\x03");
    shell.keys("echo interrup''ted $?\r");
    shell.expect("interrupted 130");
    shell.keys("exit 42\r");
    assert_eq!(shell.end(), 42);

    let mut detached = OnTerminal::start(home, &["shell", "sh"], (80, 24));
    detached.keys("echo he''re\r");
    detached.expect("here");
    detached.keys("~.");
    assert_eq!(detached.end(), 125);

    let mut ended = OnTerminal::start(home, &["shell", "sh"], (80, 24));
    ended.keys("echo he''re\r");
    ended.expect("here");
    ended.signal(Signal::TERM);
    assert_eq!(ended.end(), 129);
    server.stop();
}

#[test]
fn a_shell_survives_kill_9_of_the_server() {
    let mut server = Server::start();
    let home = server.home().path().to_owned();
    run(&home, &["create", "sh"]).ok();
    let mut shell = OnTerminal::start(&home, &["shell", "sh"], (80, 24));
    shell.keys("X=kept; echo be''fore\r");
    shell.expect("before");
    server.kill();
    shell.expect("attaching again");
    server.start_again();
    shell.expect("attached again");
    shell.keys("echo $X and alive\r");
    shell.expect("kept and alive");
    shell.keys("exit 9\r");
    assert_eq!(shell.end(), 9);
    server.stop();
}

#[test]
fn output_made_while_the_server_was_gone_is_neither_lost_nor_doubled() {
    let mut server = Server::start();
    let home = server.home().path().to_owned();
    run(&home, &["create", "loop"]).ok();
    // The command waits for files that we make by the guest's own clock: none.
    let script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 6";
    let child = pinfold(&home)
        .args(["exec", "loop", "--", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    testkit::until("the command to run", std::time::Duration::from_secs(20), || {
        let listed = run(&home, &["ps", "loop", "--json"]).json();
        listed.as_array().is_some_and(|execs| !execs.is_empty()).then_some(())
    });
    server.kill();
    server.start_again();
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let wanted: Vec<String> = (0..400).map(|n| format!("line {n}")).collect();
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    server.stop();
}

#[test]
fn a_throw_away_command_survives_a_restart_of_the_server_too() {
    let mut server = Server::start();
    let home = server.home().path().to_owned();
    let mut child = pinfold(&home)
        .args(["run", "--", "sh", "-c", "echo begun; sleep 3; echo done; exit 4"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line, "begun\n");
    server.kill();
    server.start_again();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).expect("the rest");
    assert_eq!(rest, "done\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(4));
    testkit::until("the workspace to go", std::time::Duration::from_secs(20), || {
        (run(&home, &["ls", "--json"]).json()["items"] == serde_json::json!([])).then_some(())
    });
    server.stop();
}
