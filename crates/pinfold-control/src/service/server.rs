//! The server itself.

use std::collections::BTreeMap;

use pinfold_auth::{Grant, OPERATIONS, OperationInfo, ops};
use pinfold_types::{
    Result,
    access::Reach,
    api::{CreateBackup, DoctorReport, RecoveryAction, ServerInfo},
};

use crate::{ByteStream, Node, Service, Tracked};

impl<N: Node> Service<N> {
    /// Which server this is, and how many workspaces the caller sees.
    pub async fn server(&self, grant: Grant<ops::ServerRead>) -> Result<ServerInfo> {
        let call = self.enter(grant)?;
        let facts = &self.inner.facts;
        let caller = call.caller().principal();
        let mut workspaces = BTreeMap::new();
        for workspace in self.node().list() {
            if self.access().sees_in(caller, workspace.owner, workspace.id) {
                *workspaces.entry(workspace.state.as_str().to_owned()).or_insert(0) += 1;
            }
        }
        // Where the server lives is nobody's business who does not see everything.
        let all = caller.authority().reach == Reach::All;
        let answer = ServerInfo {
            version: facts.version.clone(),
            pid: std::process::id(),
            home: if all { facts.home.display().to_string() } else { String::new() },
            uptime_ms: u64::try_from(facts.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            workspaces,
        };
        call.end(Ok(answer)).await
    }

    /// The operation table.
    pub async fn operations(
        &self,
        grant: Grant<ops::OperationList>,
    ) -> Result<&'static [OperationInfo]> {
        self.enter(grant)?.end(Ok(OPERATIONS)).await
    }

    /// Whether the caller may have the document that describes all of this.
    pub async fn openapi(&self, grant: Grant<ops::OpenapiRead>) -> Result<()> {
        self.enter(grant)?.end(Ok(())).await
    }

    /// What this machine can do.
    pub async fn doctor(&self, grant: Grant<ops::DoctorRun>) -> Result<DoctorReport> {
        let call = self.enter(grant)?;
        call.end(self.node().doctor().await).await
    }

    /// What recovery did at the start, for those who see everything.
    pub async fn recovery(&self, grant: Grant<ops::RecoveryList>) -> Result<Vec<RecoveryAction>> {
        let call = self.enter(grant)?;
        let all = call.caller().principal().authority().reach == Reach::All;
        call.end(Ok(if all { self.node().recovery() } else { Vec::new() })).await
    }

    /// This home in one encrypted stream.
    pub async fn create_backup(
        &self,
        grant: Grant<ops::BackupCreate>,
        request: CreateBackup,
    ) -> Result<Tracked<ByteStream>> {
        let call = self.enter(grant)?;
        let made = self.node().backup(request).await;
        call.stream(made).await
    }
}
