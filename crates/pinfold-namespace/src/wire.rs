//! Messages between server, launcher and the launching children: one JSON document and some
//! descriptors a packet, on `SOCK_SEQPACKET` sockets (unix(7)).

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use pinfold_types::Mode;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    spec::{LaunchExtras, LaunchSpec},
};

/// Most bytes of one message: below the kernel's default send buffer of 208 KiB.
pub(crate) const MAX_MESSAGE: usize = 128 << 10;
/// Most descriptors of one message: the kernel's `SCM_MAX_FD`.
pub(crate) const MAX_DESCRIPTORS: usize = 253;

/// Server to launcher. Descriptors: the reply socket, the configuration pipe, the guest's
/// standard error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub mode: Mode,
    pub spec: LaunchSpec,
    pub extras: LaunchExtras,
}

/// Launching children to server, on the launch's own reply socket. The end of the stream after
/// `Ready`, and with no `Failed`, means that the guest was executed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// With the pidfd.
    Pid(i32),
    /// All walls stand.
    Ready { landlock_abi: u32, namespaces: Vec<String>, trace: Vec<(String, u64)> },
    /// Which step failed. The first of several counts.
    Failed(Failure),
}

/// Sends one packet whole, or not at all.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(|_| ())
}

/// The bytes and the descriptors of one message.
pub(crate) type Packet<'b> = (&'b [u8], Vec<OwnedFd>);

/// Receives one packet into `buffer`; `None` at the end of the stream.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<Packet<'_>>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    Ok(Some((&buffer[..received.bytes], descriptors)))
}
