//! TCP inside: connections to the workspace's own loopback, and which ports listen.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    rc::Rc,
    time::Duration,
};

use bytes::BytesMut;
use pinfold_proto::Kind;
use pinfold_types::{Error, ErrorCode, api::PortInfo};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    channel::{Incoming, Stream},
    failure,
};

/// A loopback connection is there at once or not at all, unless the program's backlog is full.
const CONNECT: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;
/// Bytes read of each of the kernel's tables.
const MAX_TABLE_BYTES: u64 = 8 << 20;

async fn connect(port: u16) -> Result<TcpStream, Error> {
    if port == 0 {
        return Err(Error::new(ErrorCode::InvalidArgument, "port 0 is not a port"));
    }
    let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in loopbacks {
        match timeout(CONNECT, TcpStream::connect((address, port))).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(failure::on(&format!("connect to port {port} inside the workspace"), &last)
        .hint("is the program listening? `pinfold ports ls WORKSPACE` lists what is"))
}

/// Joins a stream to a port, each direction until its own end.
pub async fn tunnel(stream: Stream, port: u16) {
    let socket = match connect(port).await {
        Ok(socket) => socket,
        Err(error) => return stream.fail(&error),
    };
    // Interactive protocols suffer from Nagle more than the loopback gains by it.
    drop(socket.set_nodelay(true));
    stream.message(&());
    join(stream, socket, &format!("talk to port {port} inside the workspace")).await;
}

/// A connected socket of any kind.
pub trait Socket: AsFd {
    /// Returns when there may be something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;
    /// Reads what there is.
    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize>;
    /// Returns when there may be room to write.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;
    /// Writes what there is room for.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

macro_rules! socket {
    ($kind:ty) => {
        impl Socket for $kind {
            async fn readable(&self) -> io::Result<()> {
                <$kind>::readable(self).await
            }
            fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
                <$kind>::try_read_buf(self, buffer)
            }
            async fn writable(&self) -> io::Result<()> {
                <$kind>::writable(self).await
            }
            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                <$kind>::try_write(self, bytes)
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

/// Joins a stream to a socket, each direction until its own end. `doing` is for errors.
pub async fn join(stream: Stream, socket: impl Socket, doing: &str) {
    let stream = Rc::new(stream);
    let result = tokio::select! {
        result = async { tokio::try_join!(outward(&stream, &socket), inward(&stream, &socket)) } => {
            result.map(|_| ())
        }
        () = stream.gone() => return,
    };
    let Some(stream) = Rc::into_inner(stream) else { return };
    match result {
        Ok(()) => stream.close(&()),
        Err(error) => stream.fail(&failure::on(doing, &error)),
    }
}

async fn outward(stream: &Stream, socket: &impl Socket) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        socket.readable().await?;
        buffer.reserve(CHUNK);
        match socket.try_read_buf(&mut buffer) {
            Ok(0) => {
                stream.end_data();
                return Ok(());
            }
            Ok(_) => {
                if stream.send(Kind::Data0, buffer.split().freeze()).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An idle tunnel holds no buffer.
                buffer = BytesMut::new();
            }
            Err(error) => return Err(error),
        }
    }
}

async fn inward(stream: &Stream, socket: &impl Socket) -> io::Result<()> {
    while let Ok(Incoming::Data(data)) = stream.receive().await {
        let mut rest: &[u8] = &data;
        while !rest.is_empty() {
            socket.writable().await?;
            match socket.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        stream.consumed(data.len());
    }
    // The host has no more to say; the program may.
    match rustix::net::shutdown(socket, rustix::net::Shutdown::Write) {
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Ports that listen, from `/proc/net/tcp` and `/proc/net/tcp6` (`proc_net(5)`).
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn ports() -> Result<Vec<PortInfo>, Error> {
    let mut found = BTreeSet::new();
    let mut table = |path: &str| -> io::Result<()> {
        let mut text = String::new();
        File::open(path)?.take(MAX_TABLE_BYTES).read_to_string(&mut text)?;
        found.extend(text.lines().filter_map(listener));
        Ok(())
    };
    table("/proc/net/tcp").map_err(|error| failure::on("list ports", &error))?;
    // A kernel without IPv6 has no such file.
    drop(table("/proc/net/tcp6"));
    Ok(found
        .into_iter()
        .map(|(port, address)| PortInfo { port, address: address.to_string() })
        .collect())
}

/// One line of the table, when it is of a listening socket.
fn listener(line: &str) -> Option<(u16, IpAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    if state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes in the machine's own order, here little-endian.
    let word = |place: usize| {
        let digits = address.get(place * 8..place * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_le_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0_u8; 16];
            for (place, slot) in bytes.chunks_exact_mut(4).enumerate() {
                slot.copy_from_slice(&word(place)?);
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some((port, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let v4 =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1";
        assert_eq!(listener(v4), Some((8080, IpAddr::V4(Ipv4Addr::LOCALHOST))));
        let v6 =
            "  1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0";
        assert_eq!(listener(v6), Some((22, IpAddr::V6(Ipv6Addr::LOCALHOST))));
        assert_eq!(listener(&v4.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }

    proptest! {
        #[test]
        fn wild_lines_are_no_listeners(line in "\\PC{0,80}") {
            let _ = listener(&line);
        }
    }
}
