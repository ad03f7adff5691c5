//! TCP in front of the server's unix socket, for clients that know no other. Bytes pass as they
//! are, so what is tested is the server.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
};

/// Listens until the process ends, and gives its address.
pub(crate) fn start(socket: &Path) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let socket = socket.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || carry(stream, &socket));
        }
    });
    address
}

fn carry(tcp: TcpStream, socket: &PathBuf) {
    let Ok(unix) = UnixStream::connect(socket) else { return };
    let (Ok(from_client), Ok(to_server)) = (tcp.try_clone(), unix.try_clone()) else { return };
    let there = thread::spawn(move || {
        pass(from_client, &to_server);
        let _gone = to_server.shutdown(Shutdown::Write);
    });
    pass(unix, &tcp);
    let _gone = tcp.shutdown(Shutdown::Both);
    let _ended = there.join();
}

fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
