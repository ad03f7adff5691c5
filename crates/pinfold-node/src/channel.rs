//! The channel to a boot's guest: dialled by one at a time, and again when it broke.
//!
//! A guest serves one channel, and a newer one replaces it. Two dials at the same time would
//! therefore leave whoever finished first with a channel that ends at its first use; so there is
//! one lock per boot, and who comes second takes what the first one dialled.

use std::{future::Future, time::Instant};

use pinfold_types::{Error, ErrorCode, ExecId, Result, exec::ExecSpec};

use crate::{
    guest::{ExecStream, Guest},
    live::Live,
    options::GUEST_ADOPT,
    workspace::Workspace,
};

/// When the last dial failed, and why: whoever was waiting for that dial shares its answer
/// instead of waiting for one of its own.
pub(crate) type LastFailure = Option<(Instant, Error)>;

impl Workspace {
    /// An open channel to the guest of a boot: the present one, or a new one where that has ended.
    ///
    /// # Errors
    /// `unavailable` when the guest does not answer within [`GUEST_ADOPT`].
    pub(crate) async fn channel(&self, live: &Live) -> Result<Guest> {
        if let Some(guest) = live.open_guest() {
            return Ok(guest);
        }
        let asked = Instant::now();
        let mut failure = live.dialling.lock().await;
        if let Some(guest) = live.open_guest() {
            return Ok(guest);
        }
        if let Some((at, error)) = &*failure
            && *at >= asked
        {
            return Err(error.clone());
        }
        let dialled = self.dial(live).await;
        match &dialled {
            Ok(guest) => {
                live.set_guest(guest.clone());
                *failure = None;
            }
            Err(error) => {
                tracing::debug!(id = %self.id, %error, "a guest gave no channel");
                *failure = Some((Instant::now(), error.clone()));
            }
        }
        dialled
    }

    async fn dial(&self, live: &Live) -> Result<Guest> {
        let no_answer = |why: String| {
            Error::new(ErrorCode::Unavailable, "the workspace's first process does not answer")
                .hint("try again in a moment, or restart it: pinfold stop, pinfold start")
                .context(why)
        };
        let secret = self.with_row(|row| row.secret.clone());
        let secret = secret.ok_or_else(|| no_answer("its boot has ended".into()))?;
        let connect = Guest::connect(&live.socket, &self.id, live.boot, &secret);
        match tokio::time::timeout(GUEST_ADOPT, connect).await {
            Ok(Ok(guest)) => Ok(guest),
            Ok(Err(error)) => Err(no_answer(error.to_string())),
            Err(_) => Err(no_answer(format!("no answer within {GUEST_ADOPT:?}"))),
        }
    }

    /// Asks the guest; when the channel ends meanwhile and the guest lives, asks once more over a
    /// new one. Only for what does no more when it is done twice.
    pub(crate) async fn ask<T, F>(
        &self,
        live: &Live,
        question: impl Fn(Guest) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let guest = self.channel(live).await?;
        match question(guest.clone()).await {
            Err(error) if was_lost(&guest, &error) => match self.channel(live).await {
                Ok(guest) => question(guest).await,
                Err(_) => Err(error),
            },
            answer => answer,
        }
    }

    /// Starts a command, once: when the channel ends before the guest has answered, a new one is
    /// asked for the same id, and a guest that knows it already gives its output from the
    /// beginning.
    pub(crate) async fn start_exec(
        &self,
        live: &Live,
        id: ExecId,
        spec: ExecSpec,
    ) -> Result<ExecStream> {
        let guest = self.channel(live).await?;
        let error = match guest.exec(id, spec.clone()).await {
            Err(error) if was_lost(&guest, &error) => error,
            answer => return answer,
        };
        let Ok(guest) = self.channel(live).await else { return Err(error) };
        match guest.exec(id, spec).await {
            Err(known) if known.code == ErrorCode::AlreadyExists => guest.attach(id, Some(0)).await,
            answer => answer,
        }
    }
}

/// Whether an answer is missing because the channel ended.
pub(crate) fn was_lost(guest: &Guest, error: &Error) -> bool {
    error.code == ErrorCode::Unavailable && guest.is_closed()
}
