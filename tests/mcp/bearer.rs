//! A loopback proxy that adds a bearer, for clients that cannot send one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
};

/// Passes everything on to the server at `to`, with `token` in each request. Lives as long as the
/// process.
pub(crate) fn adds(to: SocketAddr, token: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let credential = format!("Authorization: Bearer {token}\r\n");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let credential = credential.clone();
            // A client that breaks off is its own business.
            std::thread::spawn(move || drop(pass(&client, to, &credential)));
        }
    });
    address
}

/// One request: the server is asked to close after its answer, so that is where the answer ends.
fn pass(client: &TcpStream, to: SocketAddr, credential: &str) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0_u64);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "connection" | "keep-alive" => continue,
            "content-length" => {
                let text = line.split(':').nth(1).unwrap_or_default();
                length = text.trim().parse().unwrap_or(0);
            }
            _ if line == "\r\n" => break,
            _ => {}
        }
        head.push_str(&line);
    }
    let mut server = TcpStream::connect(to)?;
    server.write_all(format!("{head}{credential}Connection: close\r\n\r\n").as_bytes())?;
    std::io::copy(&mut from.by_ref().take(length), &mut server)?;
    // A client that goes takes its connection to the server with it.
    let watched = server.try_clone()?;
    let gone = std::thread::spawn(move || {
        let _ended = from.read(&mut [0]);
        let _closed = watched.shutdown(Shutdown::Both);
    });
    let mut client = client.try_clone()?;
    let _broken = std::io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)?;
    let _watched = gone.join();
    Ok(())
}
