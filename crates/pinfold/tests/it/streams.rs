//! Standard streams, signals and ports of running commands.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::Server;

use crate::program::{pinfold, run};

fn signal(child: &std::process::Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits")).expect("not zero");
    kill_process(pid, signal).expect("our child");
}

#[test]
fn much_output_arrives_whole_and_in_order() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "big"]).ok();
    let script = "head -c 50000000 /dev/zero | tr '\\0' 'a'; echo end";
    let output =
        pinfold(home).args(["exec", "big", "--", "sh", "-c", script]).output().expect("runs");
    assert_eq!(output.stdout.len(), 50_000_004);
    assert!(output.stdout.ends_with(b"aend\n"));
    server.stop();
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let server = Server::start();
    let home = server.home().path();
    let mut child = pinfold(home)
        .args(["run", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut head = [0; 4];
    child.stdout.take().expect("piped").read_exact(&mut head).expect("some output");
    assert_eq!(&head, b"y\ny\n");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(141), "{}", String::from_utf8_lossy(&ended.stderr));
    testkit::until("the throw-away workspace to go", std::time::Duration::from_secs(20), || {
        (run(home, &["ls", "--json"]).json()["items"] == serde_json::json!([])).then_some(())
    });
    server.stop();
}

#[test]
fn signals_are_passed_on() {
    let server = Server::start();
    let home = server.home().path();
    for (sent, name, code) in [(Signal::INT, "INT", 10), (Signal::TERM, "TERM", 11)] {
        let script = format!(
            "trap 'echo got {name}; exit {code}' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = pinfold(home)
            .args(["run", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        signal(&child, sent);
        assert_eq!(lines.next().expect("a line").expect("text"), format!("got {name}"));
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
    }
    server.stop();
}

#[test]
fn ports_inside_are_reached_from_loopback_with_half_close() {
    let server = Server::start();
    let home = server.home().path();
    run(home, &["create", "net"]).ok();
    // Reads to the end of input, then answers: it works only if the half-close arrives.
    let script = "import socket
s = socket.create_server(('127.0.0.1', 8123))
print('listening', flush=True)
while True:
    c, _ = s.accept()
    data = b''
    while chunk := c.recv(65536):
        data += chunk
    c.sendall(b'%d bytes' % len(data))
    c.close()";
    let mut inside = pinfold(home)
        .args(["exec", "net", "--", "python3", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut said = BufReader::new(inside.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "listening\n");
    assert!(run(home, &["ports", "ls", "net"]).ok().contains("8123"));

    let mut forward = pinfold(home)
        .args(["ports", "forward", "net", "0:8123"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(forward.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.split_whitespace().next().expect("an address").to_owned();
    for size in [0, 1, 1_000_000] {
        let mut tcp = TcpStream::connect(&address).expect("the forward listens");
        tcp.write_all(&vec![7; size]).expect("sent");
        tcp.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, format!("{size} bytes"));
    }
    signal(&forward, Signal::TERM);
    assert_eq!(forward.wait().expect("it ends").code(), Some(0));
    signal(&inside, Signal::TERM);
    inside.wait().expect("it ends");
    server.stop();
}
