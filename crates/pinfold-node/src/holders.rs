//! Whose workspaces are. The node records it and decides nothing by it.

use pinfold_types::{
    Error, ErrorCode, Result,
    access::{Holder, Holding, SnapshotHolding},
    limits::ResourceLimits,
    workspace::CreateWorkspace,
};

use crate::{LocalNode, limits, workspace::Workspace};

fn holding(workspace: &Workspace) -> Holding {
    workspace.with_row(|row| Holding {
        id: row.id,
        holder: row.spec.holder,
        limits: row.spec.limits.clone(),
    })
}

impl LocalNode {
    /// Whose a workspace is. Answered from memory.
    pub fn holding(&self, reference: &str) -> Result<Holding> {
        Ok(holding(&*self.inner().registry.find(reference)?))
    }

    /// Whose every workspace is, and what it counts for. Answered from memory.
    pub fn holdings(&self) -> Vec<Holding> {
        self.inner().registry.list().iter().map(|workspace| holding(workspace)).collect()
    }

    /// Whose a snapshot is.
    pub async fn snapshot_holding(&self, reference: &str) -> Result<SnapshotHolding> {
        let row = self.inner().find_snapshot(reference, None).await?;
        Ok(SnapshotHolding {
            id: row.id,
            workspace: row.workspace,
            holder: row.spec.holder,
            limits: row.spec.limits,
        })
    }

    /// The limits that a new workspace would get. Answered from memory.
    pub fn limits_for(&self, request: &CreateWorkspace) -> Result<ResourceLimits> {
        let inner = self.inner();
        let enforceable = |kind| inner.enforceable(kind);
        let config = &inner.config.workspaces;
        limits::for_create(
            &request.limits,
            config,
            inner.mode,
            request.allow_unlimited,
            &enforceable,
        )
    }

    /// Gives a workspace from one holder to another. Of two who ask at the same instant one gets
    /// it, and the other `conflict` (INP-L2).
    pub async fn hand_over(&self, reference: &str, from: Holder, to: Holder) -> Result<()> {
        let workspace = self.inner().registry.find(reference)?;
        self.shielded(|inner| async move {
            let _one = workspace.operation.lock().await;
            let mut row = workspace.row();
            let held = row.spec.holder;
            if (held.principal, held.session) != (from.principal, from.session) {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!(
                        "workspace {:?} was given to somebody else just now",
                        row.name.as_str()
                    ),
                )
                .hint("look whose it is: pinfold info"));
            }
            row.spec.holder = to;
            inner.store.update_workspace(&row).await?;
            workspace.with_row(|row| row.spec.holder = to);
            Ok(())
        })
        .await
    }
}
