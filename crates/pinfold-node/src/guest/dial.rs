//! The handshake, the host's side.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::BytesMut;
use pinfold_proto::{
    Decoder, Frame, Hello, Kind, OLDEST_PROTOCOL, PROTOCOL, SendQueue, Welcome,
    handshake::SecretField,
};
use pinfold_types::{BootSecret, Error, ErrorCode, WorkspaceId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use zeroize::Zeroizing;

use super::{
    call::parse,
    link::{Link, Users},
};

/// How long dialling and the handshake may take together.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the kernel may hold on the way to the guest: two large frames and what they cost it beside.
const SEND_BYTES: usize = 512 << 10;
/// Longest answer.
const MAX_WELCOME: usize = 4096;

/// Dials and shows the secret.
pub(super) async fn dial(
    path: &Path,
    workspace: &WorkspaceId,
    boot: u64,
    secret: &BootSecret,
) -> Result<Arc<Users>, Error> {
    let attempt = async {
        let mut socket = UnixStream::connect(path).await.map_err(silent)?;
        // Less than it asks for, or the usual size, is slower and nothing else.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
        let hello = Hello {
            protocol: PROTOCOL,
            workspace: *workspace,
            boot,
            secret: SecretField(secret.clone()),
        };
        let mut queue = SendQueue::default();
        queue.push_message(0, Kind::Message, &hello).map_err(Error::internal)?;
        let bytes = Zeroizing::new(queue.to_vec());
        socket.write_all(&bytes).await.map_err(silent)?;
        let (frame, rest) = first_frame(&mut socket).await?;
        match (frame.stream, frame.kind) {
            (0, Kind::Message) => {}
            (0, Kind::Reset) => return Err(parse::<Error>(&frame.payload).unwrap_or_else(|e| e)),
            _ => return Err(super::call::out_of_order()),
        }
        let welcome: Welcome = parse(&frame.payload)?;
        // A socket of another boot could only have the other boot's secret; still (VM-07).
        if (welcome.workspace, welcome.boot) != (*workspace, boot) {
            return Err(Error::new(
                ErrorCode::StaleBoot,
                format!("the guest is boot {} of {}", welcome.boot, welcome.workspace),
            ));
        }
        if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&welcome.protocol) {
            return Err(Error::new(
                ErrorCode::Unprocessable,
                format!("the guest speaks protocol {}", welcome.protocol),
            )
            .hint("stop and start the workspace"));
        }
        Ok(Link::start(socket, rest))
    };
    timeout(PATIENCE, attempt).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorCode::Unavailable, "the workspace's guest does not answer"))
    })
}

fn silent(error: io::Error) -> Error {
    Error::new(ErrorCode::Unavailable, "the workspace's guest cannot be reached").context(error)
}

async fn first_frame(socket: &mut UnixStream) -> Result<(Frame, BytesMut), Error> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(512));
    loop {
        let frame = decoder.decode_within(&mut buffer, MAX_WELCOME);
        if let Some(frame) = frame.map_err(|error| super::call::out_of_order().context(error))? {
            return Ok((frame, buffer));
        }
        if socket.read_buf(&mut buffer).await.map_err(silent)? == 0 {
            return Err(Error::new(
                ErrorCode::Unauthenticated,
                "the workspace's guest did not accept the boot's secret",
            ));
        }
    }
}
