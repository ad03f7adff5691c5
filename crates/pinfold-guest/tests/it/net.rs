//! Tunnels and ports.

use pinfold_types::{ErrorCode, ExecId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{Box, collect, sh},
    node::guest::ExecEvent,
};

/// Listens, says its port, and for one connection echoes everything back, then a last line.
const ECHO: &str = "import socket,sys\n\
    family = socket.AF_INET6 if sys.argv[1] == '6' else socket.AF_INET\n\
    s = socket.socket(family); s.bind(('::1' if sys.argv[1] == '6' else '127.0.0.1', 0))\n\
    s.listen(); print(s.getsockname()[1], flush=True); c, _ = s.accept()\n\
    while True:\n    d = c.recv(65536)\n    if not d: break\n    c.sendall(d)\n\
    c.sendall(b'after your end'); c.close()";

async fn echo(family: &str) {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let spec = pinfold_types::exec::ExecSpec::argv(["python3", "-c", ECHO, family]);
    let mut server = guest.exec(ExecId::generate(), spec).await.unwrap();
    let port: u16 = match server.next().await.unwrap() {
        ExecEvent::Stdout(bytes) => std::str::from_utf8(&bytes).unwrap().trim().parse().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(guest.ports().await.unwrap().iter().any(|listening| listening.port == port));
    let tunnel = guest.tcp(port).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        // Half of it closes: the other half still speaks.
        writer.shutdown().await.unwrap();
        writer
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    writing.await.unwrap();
    assert!(got.starts_with(&sent) && got.ends_with(b"after your end"));
    assert_eq!(got.len(), sent.len() + 14);
    assert_eq!(collect(server).await.result.exit_code, Some(0));
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_closes_by_halves() {
    echo("4").await;
}

#[tokio::test]
async fn a_tunnel_finds_a_port_on_ipv6() {
    echo("6").await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_an_error() {
    let workspace = Box::start();
    let guest = workspace.connect().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = guest.tcp(free).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Upstream);
    assert_eq!(guest.tcp(0).await.unwrap_err().code, ErrorCode::InvalidArgument);
    // A dropped tunnel closes the program's connection.
    let line = "python3 -c 'import socket\ns=socket.create_server((\"127.0.0.1\",0))\n\
                print(s.getsockname()[1],flush=True)\nc,_=s.accept()\nprint(c.recv(9))'";
    let mut server = guest.exec(ExecId::generate(), sh(line)).await.unwrap();
    let Some(ExecEvent::Stdout(bytes)) = server.next().await else { panic!("no port") };
    let port = std::str::from_utf8(&bytes).unwrap().trim().parse().unwrap();
    drop(guest.tcp(port).await.unwrap());
    assert_eq!(collect(server).await.text(), "b''\n");
}
