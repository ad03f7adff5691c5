//! Connections of programs inside workspaces. Each workspace has a few, so that none can take the
//! place of callers from outside or of its neighbours.

use std::{fmt, sync::Arc};

use pinfold_types::WorkspaceId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    Peer, Shared,
    connection::{Line, serve},
    places::Places,
};
use crate::{counts::Counts, upgrade::StreamGuard};

/// Connections of one workspace at once.
const OF_ONE: usize = 16;
/// Connections of all workspaces at once.
const OF_ALL: usize = 1024;
/// Connections on their way to the server.
const WAITING: usize = 64;

/// Both ways of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

type Connection = (WorkspaceId, Box<dyn Duplex>);

/// Where connections from inside are handed in.
#[derive(Clone, Debug)]
pub struct Doorstep(mpsc::Sender<Connection>);

/// Where the server takes them.
pub struct Inside(mpsc::Receiver<Connection>);

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("waiting", &self.0.len()).finish()
    }
}

impl Inside {
    /// The two ends.
    pub fn new() -> (Doorstep, Self) {
        let (doorstep, inside) = mpsc::channel(WAITING);
        (Doorstep(doorstep), Self(inside))
    }

    pub(super) async fn accept(mut self, shared: Shared) {
        let (places, open) = (Places::new(OF_ALL), Counts::default());
        loop {
            let (workspace, stream) = tokio::select! {
                () = shared.stop.cancelled() => return,
                next = self.0.recv() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            let room = places.take().zip(open.add(workspace, OF_ONE));
            let Some(counted) = room else {
                tracing::debug!(%workspace, "too many connections from inside");
                continue;
            };
            let held = (counted, shared.activity.begin());
            let line = Line {
                peer: Peer::Workspace(workspace),
                local: None,
                guard: StreamGuard::new(shared.streams.clone(), Arc::new(held)),
            };
            let (router, stop) = (shared.router.clone(), shared.stop.clone());
            shared.calls.spawn(serve(stream, router, line, stop, true));
        }
    }
}

impl Doorstep {
    /// A program of this workspace has connected. It is hung up on when too many wait.
    pub fn connected(&self, workspace: WorkspaceId, stream: impl Duplex + 'static) {
        if self.0.try_send((workspace, Box::new(stream))).is_err() {
            tracing::debug!(%workspace, "a connection from inside found nobody");
        }
    }
}
