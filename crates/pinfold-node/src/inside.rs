//! Programs inside that may ask the server for something (AUTH-08): each boot of their workspace is
//! given a token, and their connections are handed to whoever serves the API.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use pinfold_types::{PrincipalId, Result, WorkspaceId, WorkspaceState};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{guest::TcpTunnel, live::Live, workspace::Workspace};

/// Pause after a connection could not be asked for.
const PAUSE: Duration = Duration::from_millis(200);

/// A boot whose programs are to be somebody.
#[derive(Clone, Copy, Debug)]
pub struct InsideBoot {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Which of its boots.
    pub boot: u64,
    /// Whose it is.
    pub owner: Option<PrincipalId>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A token that is being made.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Zeroizing<String>>> + Send + 'a>>;

/// Whoever answers programs inside.
pub trait Inside: fmt::Debug + Send + Sync + 'static {
    /// A token for the programs of this boot.
    fn token(&self, boot: InsideBoot) -> TokenFuture<'_>;
    /// A program of this workspace has connected. Dropping the stream hangs up.
    fn connected(&self, workspace: WorkspaceId, stream: TcpTunnel);
}

/// Hands on connections for as long as the boot lives.
pub(crate) async fn doors(
    inside: Arc<dyn Inside>,
    closing: CancellationToken,
    workspace: Arc<Workspace>,
    live: Arc<Live>,
) {
    let id = workspace.id;
    let mut states = workspace.states();
    let hand_on = async {
        loop {
            // A frozen guest answers nobody.
            let _ = states.wait_for(|state| *state != WorkspaceState::Paused).await;
            let next = match workspace.channel(&live).await {
                Ok(guest) => guest.api().await,
                Err(error) => Err(error),
            };
            match next {
                Ok(stream) => inside.connected(id, stream),
                Err(error) => {
                    tracing::debug!(%id, %error, "no connection from inside could be asked for");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = live.exited() => {}
        () = hand_on => {}
    }
}
