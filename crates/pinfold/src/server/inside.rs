//! Programs inside workspaces: their tokens are the control plane's, their connections the API's.

use jiff::Timestamp;
use pinfold_api::Doorstep;
use pinfold_control::Access;
use pinfold_node::{Inside, InsideBoot, TcpTunnel, TokenFuture};
use pinfold_store::audit::{AuditEvent, AuditLog, Phase};
use pinfold_types::WorkspaceId;
use zeroize::Zeroizing;

/// Joins the two to the node.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) access: Access,
    pub(super) audit: AuditLog,
    pub(super) doorstep: Doorstep,
}

impl Inside for Answering {
    fn token(&self, boot: InsideBoot) -> TokenFuture<'_> {
        Box::pin(async move {
            let InsideBoot { workspace, boot, owner, expires_at } = boot;
            let made = self.access.boot_token(workspace, boot, owner, expires_at).await?;
            let mut event = AuditEvent::new(Timestamp::now(), Phase::Security, "workspace.token");
            "server".clone_into(&mut event.principal);
            "server".clone_into(&mut event.surface);
            "allow".clone_into(&mut event.decision);
            "self_access".clone_into(&mut event.rule);
            event.object = format!("workspace {workspace}");
            event.made = vec![made.info.id.to_string()];
            self.audit.append(event.with("boot", boot.to_string())).durable().await?;
            let text = made
                .token
                .ok_or_else(|| pinfold_types::Error::internal("a boot's token without a text"))?;
            Ok(Zeroizing::new(text))
        })
    }

    fn connected(&self, workspace: WorkspaceId, stream: TcpTunnel) {
        self.doorstep.connected(workspace, stream);
    }
}
