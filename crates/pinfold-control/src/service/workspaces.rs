//! Workspaces from making to removing.

use pinfold_auth::{Caller, Grant, ops};
use pinfold_types::{
    Result,
    access::Holder,
    api::{LogsQuery, Page, PageQuery, RestoreWorkspace, RunRequest, WorkspaceLogs},
    limits::{LimitKind, ResourceLimits},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};

use super::{Call, execs::may_have_terminal, narrowed};
use crate::{Node, Service, Tracked, access::quota::Reservation, check, page::page};

fn id_of(info: &WorkspaceInfo) -> Vec<String> {
    vec![info.id.to_string()]
}

pub(super) fn children(outcomes: &[ForkOutcome]) -> Vec<String> {
    let ids = outcomes.iter().filter_map(|outcome| match outcome {
        ForkOutcome::Workspace(info) => Some(info.id.to_string()),
        ForkOutcome::Error(_) => None,
    });
    ids.collect()
}

impl<N: Node> Service<N> {
    /// Makes a workspace.
    pub async fn create_workspace(
        &self,
        grant: Grant<ops::WorkspaceCreate>,
        request: CreateWorkspace,
    ) -> Result<WorkspaceInfo> {
        request.check()?;
        let call = self.enter(grant)?;
        let result = match self.reserve_new(call.caller(), &request) {
            // What was reserved is given up once the workspace is there.
            Ok((reserved, holder)) => {
                let request = CreateWorkspace { holder, ..request };
                let make = |this: Self| async move { this.node().create(request).await };
                self.holding(reserved, make).await
            }
            Err(refused) => Err(refused),
        };
        call.end_with(result, id_of).await
    }

    /// Reserves what a new workspace takes, and says whose it will be.
    fn reserve_new(
        &self,
        caller: &Caller,
        request: &CreateWorkspace,
    ) -> Result<(Reservation, Holder)> {
        let limits = self.node().limits_for(request)?;
        self.reserve(caller, &limits, 1)
    }

    /// One page of all workspaces, oldest first.
    pub async fn list_workspaces(
        &self,
        grant: Grant<ops::WorkspaceList>,
        query: &PageQuery,
    ) -> Result<Page<WorkspaceInfo>> {
        let call = self.enter(grant)?;
        let mut seen = self.node().list();
        seen.retain(|info| self.access().sees_in(call.caller().principal(), info.owner, info.id));
        call.end(page(seen, query, |info| info.id)).await
    }

    /// Makes a throw-away workspace for one command.
    pub async fn run(
        &self,
        grant: Grant<ops::WorkspaceRun>,
        request: RunRequest,
    ) -> Result<(WorkspaceInfo, Tracked<N::Exec>)> {
        check::run(&request)?;
        let call = self.enter(grant)?;
        let terminal = request.exec.as_ref().is_some_and(|spec| spec.tty.is_some());
        let allowed = may_have_terminal(call.caller(), terminal);
        let reserved = allowed.and_then(|()| self.reserve_new(call.caller(), &request.workspace));
        let result = match reserved {
            Ok((reserved, holder)) => {
                let workspace = CreateWorkspace { holder, ..request.workspace };
                let request = RunRequest { workspace, ..request };
                let make = |this: Self| async move { this.node().run(request).await };
                self.holding(reserved, make).await
            }
            Err(refused) => Err(refused),
        };
        let tracked = call.stream_with(result, |(info, _)| id_of(info)).await?;
        let mut made = None;
        let tracked = tracked.map(|(info, exec)| {
            made = Some(info);
            exec
        });
        Ok((made.expect("set above"), tracked))
    }

    /// One workspace.
    pub async fn workspace(&self, grant: Grant<ops::WorkspaceRead>) -> Result<WorkspaceInfo> {
        let call = self.enter(grant)?;
        let result = self.node().get(call.reference());
        call.end(result).await
    }

    /// Changes a workspace.
    pub async fn update_workspace(
        &self,
        grant: Grant<ops::WorkspaceUpdate>,
        change: UpdateWorkspace,
    ) -> Result<WorkspaceInfo> {
        check::update(&change)?;
        let call = self.enter(grant)?;
        let result = match self.reserve_wider(&call, &change) {
            Ok(reserved) => {
                let id = call.reference().to_owned();
                let work = |this: Self| async move { this.node().update(&id, change).await };
                self.holding(reserved, work).await
            }
            Err(refused) => Err(refused),
        };
        call.end(result).await
    }

    /// What limits that are raised need of the quotas: the new ones beside the old ones, as long
    /// as the change is under way.
    fn reserve_wider(
        &self,
        call: &Call<ops::WorkspaceUpdate>,
        change: &UpdateWorkspace,
    ) -> Result<Reservation> {
        let held = self.node().holding(call.reference())?;
        let mut more = ResourceLimits::default();
        let mut raised = false;
        for kind in LimitKind::ALL.iter().copied() {
            let (old, new) = (held.limits.get(kind), change.limits.get(kind));
            let by = new.zip(old).map(|(new, old)| new.saturating_sub(old));
            raised |= by.is_some_and(|by| by > 0) || (old.is_none() && new.is_some());
            more.set(kind, Some(by.unwrap_or(0)));
        }
        if !raised {
            return Ok(Reservation::open());
        }
        let line = self.access().identity().line(held.holder.principal);
        let holdings = || self.node().holdings();
        self.access().quotas().reserve_more(self.access().identity(), line, &more, holdings)
    }

    /// Removes a workspace.
    pub async fn destroy_workspace(&self, grant: Grant<ops::WorkspaceDestroy>) -> Result<()> {
        let call = self.enter(grant)?;
        let result = self.node().destroy(call.reference()).await;
        call.end(result).await
    }

    /// Boots a workspace.
    pub async fn start_workspace(
        &self,
        grant: Grant<ops::WorkspaceStart>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant)?;
        let result = self.node().start(call.reference()).await;
        call.end(result).await
    }

    /// Ends a workspace's processes.
    pub async fn stop_workspace(&self, grant: Grant<ops::WorkspaceStop>) -> Result<WorkspaceInfo> {
        let call = self.enter(grant)?;
        let result = self.node().stop(call.reference()).await;
        call.end(result).await
    }

    /// Freezes a workspace's processes.
    pub async fn pause_workspace(
        &self,
        grant: Grant<ops::WorkspacePause>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant)?;
        let result = self.node().pause(call.reference()).await;
        call.end(result).await
    }

    /// Thaws a workspace's processes.
    pub async fn resume_workspace(
        &self,
        grant: Grant<ops::WorkspaceResume>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant)?;
        let result = self.node().resume(call.reference()).await;
        call.end(result).await
    }

    /// Puts a workspace's disk back to a snapshot.
    pub async fn restore_workspace(
        &self,
        grant: Grant<ops::WorkspaceRestore>,
        request: &RestoreWorkspace,
    ) -> Result<WorkspaceInfo> {
        check::snapshot_reference(&request.snapshot)?;
        let call = self.enter(grant)?;
        let result = self.node().restore(call.reference(), &request.snapshot).await;
        call.end(result).await
    }

    /// Forks a workspace: a result or an error for each child.
    pub async fn fork_workspace(
        &self,
        grant: Grant<ops::WorkspaceFork>,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        check::fork(&request)?;
        let call = self.enter(grant)?;
        let reserved = self.node().holding(call.reference()).and_then(|source| {
            let limits = narrowed(&source.limits, &request.limits);
            self.reserve(call.caller(), &limits, u64::from(request.count))
        });
        let result = match reserved {
            Ok((reserved, holder)) => {
                let id = call.reference().to_owned();
                let request = ForkWorkspace { holder, ..request };
                let make = |this: Self| async move { this.node().fork(&id, request).await };
                self.holding(reserved, make).await
            }
            Err(refused) => Err(refused),
        };
        call.end_with(result, |outcomes| children(outcomes)).await
    }

    /// What a workspace uses now.
    pub async fn workspace_stats(
        &self,
        grant: Grant<ops::WorkspaceStats>,
    ) -> Result<WorkspaceStats> {
        let call = self.enter(grant)?;
        let result = self.node().stats(call.reference()).await;
        call.end(result).await
    }

    /// What happened to a workspace, and its start-up command's last output.
    pub async fn workspace_logs(
        &self,
        grant: Grant<ops::WorkspaceLogs>,
        query: LogsQuery,
    ) -> Result<WorkspaceLogs> {
        let call = self.enter(grant)?;
        let result = self.node().logs(call.reference(), query.after.unwrap_or(0)).await;
        call.end(result).await
    }
}
