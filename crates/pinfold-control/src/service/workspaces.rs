//! Workspaces from making to removing.

use pinfold_auth::{Grant, ops};
use pinfold_types::{
    Result,
    api::{LogsQuery, Page, PageQuery, RestoreWorkspace, RunRequest, WorkspaceLogs},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};

use super::Call;
use crate::{Node, Service, Tracked, check, page::page};

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
        let call = self.enter(grant);
        let result = self.node().create(request).await;
        call.end_with(result, id_of)
    }

    /// One page of all workspaces, oldest first.
    pub fn list_workspaces(
        &self,
        grant: Grant<ops::WorkspaceList>,
        query: &PageQuery,
    ) -> Result<Page<WorkspaceInfo>> {
        let call = self.enter(grant);
        call.end(page(self.node().list(), query, |info| info.id))
    }

    /// Makes a throw-away workspace for one command.
    pub async fn run(
        &self,
        grant: Grant<ops::WorkspaceRun>,
        request: RunRequest,
    ) -> Result<(WorkspaceInfo, Tracked<N::Exec>)> {
        check::run(&request)?;
        let Call { flight, record, .. } = self.enter(grant);
        let result = self.node().run(request).await;
        if let Some(record) = record {
            let made = result.as_ref().map(|(info, _)| id_of(info)).unwrap_or_default();
            record.end(&result, made);
        }
        result.map(|(info, exec)| (info, Tracked::new(exec, flight)))
    }

    /// One workspace.
    pub fn workspace(&self, grant: Grant<ops::WorkspaceRead>) -> Result<WorkspaceInfo> {
        let call = self.enter(grant);
        let result = self.node().get(call.reference());
        call.end(result)
    }

    /// Changes a workspace.
    pub async fn update_workspace(
        &self,
        grant: Grant<ops::WorkspaceUpdate>,
        change: UpdateWorkspace,
    ) -> Result<WorkspaceInfo> {
        check::update(&change)?;
        let call = self.enter(grant);
        let result = self.node().update(call.reference(), change).await;
        call.end(result)
    }

    /// Removes a workspace.
    pub async fn destroy_workspace(&self, grant: Grant<ops::WorkspaceDestroy>) -> Result<()> {
        let call = self.enter(grant);
        let result = self.node().destroy(call.reference()).await;
        call.end(result)
    }

    /// Boots a workspace.
    pub async fn start_workspace(
        &self,
        grant: Grant<ops::WorkspaceStart>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant);
        let result = self.node().start(call.reference()).await;
        call.end(result)
    }

    /// Ends a workspace's processes.
    pub async fn stop_workspace(&self, grant: Grant<ops::WorkspaceStop>) -> Result<WorkspaceInfo> {
        let call = self.enter(grant);
        let result = self.node().stop(call.reference()).await;
        call.end(result)
    }

    /// Freezes a workspace's processes.
    pub async fn pause_workspace(
        &self,
        grant: Grant<ops::WorkspacePause>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant);
        let result = self.node().pause(call.reference()).await;
        call.end(result)
    }

    /// Thaws a workspace's processes.
    pub async fn resume_workspace(
        &self,
        grant: Grant<ops::WorkspaceResume>,
    ) -> Result<WorkspaceInfo> {
        let call = self.enter(grant);
        let result = self.node().resume(call.reference()).await;
        call.end(result)
    }

    /// Puts a workspace's disk back to a snapshot.
    pub async fn restore_workspace(
        &self,
        grant: Grant<ops::WorkspaceRestore>,
        request: &RestoreWorkspace,
    ) -> Result<WorkspaceInfo> {
        check::snapshot_reference(&request.snapshot)?;
        let call = self.enter(grant);
        let result = self.node().restore(call.reference(), &request.snapshot).await;
        call.end(result)
    }

    /// Forks a workspace: a result or an error for each child.
    pub async fn fork_workspace(
        &self,
        grant: Grant<ops::WorkspaceFork>,
        request: ForkWorkspace,
    ) -> Result<Vec<ForkOutcome>> {
        check::fork(&request)?;
        let call = self.enter(grant);
        let result = self.node().fork(call.reference(), request).await;
        call.end_with(result, |outcomes| children(outcomes))
    }

    /// What a workspace uses now.
    pub async fn workspace_stats(
        &self,
        grant: Grant<ops::WorkspaceStats>,
    ) -> Result<WorkspaceStats> {
        let call = self.enter(grant);
        let result = self.node().stats(call.reference()).await;
        call.end(result)
    }

    /// What happened to a workspace, and its start-up command's last output.
    pub async fn workspace_logs(
        &self,
        grant: Grant<ops::WorkspaceLogs>,
        query: LogsQuery,
    ) -> Result<WorkspaceLogs> {
        let call = self.enter(grant);
        let result = self.node().logs(call.reference(), query.after.unwrap_or(0)).await;
        call.end(result)
    }
}
