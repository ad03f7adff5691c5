//! Commands in workspaces.

use pinfold_auth::ops;
use pinfold_control::{ExecEvent, ExecSession, ExecStart, Node, Service, Tracked};
use pinfold_types::{Error, ExecId, api::RunRequest, exec::ExecSpec};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    call::{Call, read_query},
    reply::{Reply, created, json, nothing},
    site::Terminals,
    streams::exec::{carry, first, refuse},
    upgrade::Upgrade,
};

/// A session that counts as work in flight.
struct Counted<S>(Tracked<S>);

impl<S: ExecSession> ExecSession for Counted<S> {
    type Input = S::Input;

    fn start(&self) -> ExecStart {
        self.0.start()
    }

    fn next(&mut self) -> impl Future<Output = Option<ExecEvent>> + Send {
        self.0.next()
    }

    fn input(&self) -> S::Input {
        self.0.input()
    }
}

pub(super) async fn run<N: Node>(service: Service<N>, call: Call<ops::WorkspaceRun>) -> Reply {
    let (grant, parts) = call.into_parts();
    Ok(Upgrade::new(parts)?.run(move |mut socket| async move {
        let begun = match first::<RunRequest>(&mut socket).await {
            Ok(request) => match socket.terminals.check(wants_terminal(&request)) {
                Ok(()) => service.run(grant, request).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match begun {
            Ok((_info, session)) => carry(socket, Counted(session)).await,
            Err(error) => refuse(socket, error).await,
        }
    }))
}

pub(super) async fn exec<N: Node>(service: Service<N>, call: Call<ops::ExecRun>) -> Reply {
    let (grant, parts) = call.into_parts();
    Ok(Upgrade::new(parts)?.run(move |mut socket| async move {
        let begun = match first::<ExecSpec>(&mut socket).await {
            Ok(spec) => match socket.terminals.check(spec.tty.is_some()) {
                Ok(()) => service.exec(grant, spec).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match begun {
            Ok(session) => carry(socket, Counted(session)).await,
            Err(error) => refuse(socket, error).await,
        }
    }))
}

pub(super) async fn start<N: Node>(service: Service<N>, call: Call<ops::ExecStart>) -> Reply {
    let terminals = call.parts().extensions.get::<Terminals>().copied();
    let (grant, spec): (_, ExecSpec) = call.json().await?;
    terminals
        .ok_or_else(|| Error::internal("a request that passed no gate"))?
        .check(spec.tty.is_some())?;
    created(&service.start_exec(grant, spec).await?)
}

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::ExecList>) -> Reply {
    json(&service.execs(call.grant()).await?)
}

/// Query of attach.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    /// Offset of the first byte wanted; absent: all that is held.
    pub(crate) from: Option<u64>,
}

pub(super) async fn attach<N: Node>(service: Service<N>, call: Call<ops::ExecAttach>) -> Reply {
    let exec: ExecId = call.path("exec")?;
    let From { from } = read_query(call.parts())?;
    let (grant, parts) = call.into_parts();
    // Everything that can be refused is refused before the handshake.
    let upgrade = Upgrade::new(parts)?;
    let terminal = upgrade.terminals().check(true).is_ok();
    let session = service.attach(grant, exec, from, terminal).await?;
    Ok(upgrade.run(move |socket| carry(socket, Counted(session))))
}

pub(super) async fn signal<N: Node>(service: Service<N>, call: Call<ops::ExecSignal>) -> Reply {
    let exec: ExecId = call.path("exec")?;
    let (grant, request) = call.json().await?;
    service.signal_exec(grant, exec, &request).await?;
    Ok(nothing())
}

fn wants_terminal(request: &RunRequest) -> bool {
    request.exec.as_ref().is_some_and(|spec| spec.tty.is_some())
}
