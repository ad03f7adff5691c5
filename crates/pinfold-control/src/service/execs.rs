//! Commands in workspaces.

use jiff::Timestamp;
use pinfold_auth::{Grant, ops};
use pinfold_types::{
    Error, ErrorCode, ExecId, Result,
    api::SignalExec,
    exec::{ExecInfo, ExecSpec},
};

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
        let result = self.node().exec(call.reference(), spec).await;
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
        let result = self.node().exec(call.reference(), spec).await;
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

    /// Joins a command's streams.
    pub async fn attach(
        &self,
        grant: Grant<ops::ExecAttach>,
        exec: ExecId,
        from: Option<u64>,
    ) -> Result<Tracked<N::Exec>> {
        let call = self.enter(grant)?;
        let result = self.node().attach(call.reference(), exec, from).await;
        call.stream(result).await
    }

    /// The same for a caller who may not have a terminal (AX-12): a command that has one is
    /// refused.
    pub async fn attach_without_terminal(
        &self,
        grant: Grant<ops::ExecAttach>,
        exec: ExecId,
        from: Option<u64>,
    ) -> Result<Tracked<N::Exec>> {
        let call = self.enter(grant)?;
        let result = self.join(call.reference(), exec, from, false).await;
        call.stream(result).await
    }

    /// Joins a command's output alone. `terminal` says whether the caller may have one.
    pub async fn follow_exec(
        &self,
        grant: Grant<ops::ExecFollow>,
        exec: ExecId,
        from: Option<u64>,
        terminal: bool,
    ) -> Result<Tracked<N::Exec>> {
        let call = self.enter(grant)?;
        let result = self.join(call.reference(), exec, from, terminal).await;
        call.stream(result).await
    }

    async fn join(
        &self,
        workspace: &str,
        exec: ExecId,
        from: Option<u64>,
        terminal: bool,
    ) -> Result<N::Exec> {
        if !terminal {
            let known = self.node().execs(workspace).await?;
            if known.iter().any(|known| known.id == exec && known.tty) {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    format!("{exec} has a terminal, and terminals are not for other machines"),
                )
                .hint("terminals.remote allows them, over TLS"));
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
