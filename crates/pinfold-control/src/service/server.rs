//! The server itself.

use std::collections::BTreeMap;

use pinfold_auth::{Grant, OPERATIONS, OperationInfo, ops};
use pinfold_types::{
    Result,
    api::{DoctorReport, RecoveryAction, ServerInfo},
};

use crate::{Node, Service};

impl<N: Node> Service<N> {
    /// Which server this is.
    pub fn server(&self, grant: Grant<ops::ServerRead>) -> ServerInfo {
        let _call = self.enter(grant);
        let facts = &self.inner.facts;
        let mut workspaces = BTreeMap::new();
        for workspace in self.node().list() {
            *workspaces.entry(workspace.state.as_str().to_owned()).or_insert(0) += 1;
        }
        ServerInfo {
            version: facts.version.clone(),
            pid: std::process::id(),
            home: facts.home.display().to_string(),
            uptime_ms: u64::try_from(facts.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            workspaces,
        }
    }

    /// The operation table.
    pub fn operations(&self, grant: Grant<ops::OperationList>) -> &'static [OperationInfo] {
        let _call = self.enter(grant);
        OPERATIONS
    }

    /// What this machine can do.
    pub async fn doctor(&self, grant: Grant<ops::DoctorRun>) -> Result<DoctorReport> {
        let call = self.enter(grant);
        call.end(self.node().doctor().await)
    }

    /// What recovery did at the start.
    pub fn recovery(&self, grant: Grant<ops::RecoveryList>) -> Vec<RecoveryAction> {
        let _call = self.enter(grant);
        self.node().recovery()
    }
}
