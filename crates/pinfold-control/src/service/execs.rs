//! Commands in workspaces.

use jiff::Timestamp;
use pinfold_auth::{Caller, Grant, Operation, TERMINAL, ops};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result,
    api::SignalExec,
    exec::{ExecInfo, ExecSpec},
};

use super::Call;
use crate::{ExecSession, Node, Service, Tracked, check};

impl<N: Node> Service<N> {
    /// Starts a command and joins its streams.
    pub async fn exec(
        &self,
        grant: Grant<ops::ExecRun>,
        spec: ExecSpec,
    ) -> Result<Tracked<N::Exec>> {
        spec.check()?;
        let call = self.enter(grant)?;
        let result = match may_have_terminal(call.caller(), spec.tty.is_some()) {
            Ok(()) => self.node().exec(call.reference(), spec).await,
            Err(refused) => Err(refused),
        };
        call.stream(result).await
    }

    /// Starts a command in the background, whatever the request says about it.
    pub async fn start_exec(
        &self,
        grant: Grant<ops::ExecStart>,
        spec: ExecSpec,
    ) -> Result<ExecInfo> {
        spec.check()?;
        let (command, tty) = (spec.command.clone(), spec.tty.is_some());
        let call = self.enter(grant)?;
        let spec = ExecSpec { background: true, ..spec };
        let result = match may_have_terminal(call.caller(), tty) {
            Ok(()) => self.node().exec(call.reference(), spec).await,
            Err(refused) => Err(refused),
        };
        // Dropping the session detaches, and a command in the background goes on.
        let result = result.map(|session| {
            let start = session.start();
            ExecInfo {
                id: start.exec_id,
                command,
                pid: Some(start.pid),
                tty,
                background: true,
                started_at: Timestamp::now(),
                result: None,
            }
        });
        call.end_with(result, |info| vec![info.id.to_string()]).await
    }

    /// Commands that run, or ended a short while ago.
    pub async fn execs(&self, grant: Grant<ops::ExecList>) -> Result<Vec<ExecInfo>> {
        let call = self.enter(grant)?;
        let result = self.node().execs(call.reference()).await;
        call.end(result).await
    }

    /// Joins a command's streams. `terminal` says whether terminals are for where the caller is
    /// (AX-12); without, a command that has one is refused.
    pub async fn attach(
        &self,
        grant: Grant<ops::ExecAttach>,
        exec: ExecId,
        from: Option<u64>,
        terminal: bool,
    ) -> Result<Tracked<N::Exec>> {
        let call = self.enter(grant)?;
        let result = self.join(&call, exec, from, terminal).await;
        call.stream(result).await
    }

    /// Joins a command's output alone; otherwise the same.
    pub async fn follow_exec(
        &self,
        grant: Grant<ops::ExecFollow>,
        exec: ExecId,
        from: Option<u64>,
        terminal: bool,
    ) -> Result<Tracked<N::Exec>> {
        let call = self.enter(grant)?;
        let result = self.join(&call, exec, from, terminal).await;
        call.stream(result).await
    }

    async fn join<O: Operation>(
        &self,
        call: &Call<O>,
        exec: ExecId,
        from: Option<u64>,
        terminal: bool,
    ) -> Result<N::Exec> {
        let workspace = call.reference();
        let allowed = may_have_terminal(call.caller(), true).and_then(|()| {
            let elsewhere = "terminals are not for other machines";
            let refused = || Error::new(ErrorCode::Forbidden, elsewhere);
            let hint = "terminals.remote allows them, over TLS";
            if terminal { Ok(()) } else { Err(refused().hint(hint)) }
        });
        if let Err(refused) = allowed {
            let known = self.node().execs(workspace).await?;
            if known.iter().any(|known| known.id == exec && known.tty) {
                return Err(refused);
            }
        }
        self.node().attach(workspace, exec, from).await
    }

    /// Sends a signal to a command's process group.
    pub async fn signal_exec(
        &self,
        grant: Grant<ops::ExecSignal>,
        exec: ExecId,
        request: &SignalExec,
    ) -> Result<()> {
        check::signal(request.signal)?;
        let call = self.enter(grant)?;
        let result = self.node().signal(call.reference(), exec, request.signal).await;
        call.end(result).await
    }
}

/// Whether a caller's credential is good for a terminal, where it wants one (AX-12).
pub(super) fn may_have_terminal(caller: &Caller, wanted: bool) -> Result<()> {
    if !wanted || caller.principal().authority().scopes.allows(TERMINAL) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden, format!("a terminal needs the scope {TERMINAL}"))
        .hint("run it without a terminal, or use a token that has the scope"))
}
