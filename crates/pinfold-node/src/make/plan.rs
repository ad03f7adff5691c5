//! What is decided about a workspace before it is made.

use std::{collections::BTreeMap, sync::Arc};

use pinfold_disk::Disk;
use pinfold_store::{WorkspaceRow, WorkspaceSpec};
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Result, SnapshotId, WorkspaceId, WorkspaceState,
    access::Holder,
    exec::ExecSpec,
    limits::ResourceLimits,
    workspace::{CreateWorkspace, Lineage},
};
use tokio::sync::oneshot;

use super::{after, now};
use crate::{images::ImageHold, limits, node::Inner, ready::Kind, registry::Reservation};

/// Where a new disk comes from.
#[derive(Debug)]
pub(crate) enum DiskFrom {
    /// Empty.
    New,
    /// The disk or snapshot with this id.
    Clone(String),
    /// Somebody else makes it, under the workspace's id, and hands it over.
    Coming(oneshot::Receiver<Result<Disk>>),
}

/// A workspace decided on but not made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) reservation: Reservation,
    pub(crate) hold: ImageHold,
    pub(crate) row: WorkspaceRow,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) command_env: BTreeMap<String, String>,
    pub(crate) disk: DiskFrom,
    pub(crate) start: bool,
    /// What a boot made in advance would have to be, where one could serve.
    pub(crate) like: Option<Kind>,
}

/// What a new workspace is to be, whatever it is made from. The rest follows from it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that a caller asks for")]
pub(crate) struct Draft {
    pub(crate) id: WorkspaceId,
    pub(crate) image_id: ImageId,
    pub(crate) image_name: ImageName,
    /// Checked: each can be enforced here.
    pub(crate) limits: ResourceLimits,
    pub(crate) nested: bool,
    pub(crate) self_access: bool,
    pub(crate) unlimited: bool,
    pub(crate) hostname: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) holder: Holder,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) command: Option<ExecSpec>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) ephemeral: bool,
    pub(crate) stopped: bool,
    pub(crate) lineage: Lineage,
    pub(crate) base_snapshot: Option<SnapshotId>,
    pub(crate) disk: DiskFrom,
}

impl Inner {
    /// Checks a request against this machine and configuration, and reserves its name.
    pub(crate) async fn plan_create(
        self: &Arc<Self>,
        request: CreateWorkspace,
        ephemeral: bool,
    ) -> Result<Plan> {
        request.check()?;
        let image_name =
            request.image.clone().unwrap_or_else(|| self.config.workspaces.default_image.clone());
        let image = self.image_for(image_name.as_str()).await?;
        // A name, as all else here, is part of what is booted.
        let usual = request.name.is_none()
            && request.hostname.is_none()
            && request.command.is_none()
            && !(request.nested
                || request.self_access
                || request.allow_unlimited
                || request.stopped);
        let mut plan = self.plan_on(image.id, image_name, request, ephemeral)?;
        if usual {
            let limits = plan.row.spec.limits.clone();
            plan.like = Some(Kind { image: image.id, limits, ephemeral });
        }
        Ok(plan)
    }

    /// The same on an image that need not have a name.
    pub(crate) fn plan_on(
        self: &Arc<Self>,
        image_id: ImageId,
        image_name: ImageName,
        request: CreateWorkspace,
        ephemeral: bool,
    ) -> Result<Plan> {
        let workspaces = &self.config.workspaces;
        if request.nested && workspaces.forbid_nested {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "nested workspaces are not allowed on this server",
            )
            .hint("workspaces.forbid_nested is set in config.toml"));
        }
        if request.self_access && workspaces.forbid_self_access {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "programs inside may not ask this server for anything",
            )
            .hint("workspaces.forbid_self_access is set in config.toml"));
        }
        let (unlimited, enforceable) = (request.allow_unlimited, |kind| self.enforceable(kind));
        let limits =
            limits::for_create(&request.limits, workspaces, self.mode, unlimited, &enforceable)?;
        let hold = self.holds.hold(image_id)?;
        let reservation = self.registry.reserve(request.name.as_ref())?;
        let draft = Draft {
            id: WorkspaceId::generate(),
            image_id,
            image_name,
            limits,
            nested: request.nested,
            self_access: request.self_access,
            unlimited,
            hostname: request.hostname,
            labels: request.labels,
            holder: request.holder,
            env: request.env,
            command: request.command,
            ttl_ms: request.ttl_ms,
            idle_ms: request.idle_ms,
            ephemeral,
            stopped: request.stopped,
            lineage: Lineage::default(),
            base_snapshot: None,
            disk: DiskFrom::New,
        };
        Ok(self.plan(reservation, hold, draft))
    }

    /// The plan of a workspace: its record, and what its first boot is given beside it.
    pub(crate) fn plan(&self, reservation: Reservation, hold: ImageHold, draft: Draft) -> Plan {
        let start = !draft.stopped;
        let now = now();
        let mut command = draft.command;
        // Values of variables are kept in memory only.
        let command_env = command.as_mut().map(|c| std::mem::take(&mut c.env)).unwrap_or_default();
        let row = WorkspaceRow {
            id: draft.id,
            name: reservation.name().clone(),
            state: WorkspaceState::Creating,
            reason: None,
            boot: u64::from(start),
            image_id: draft.image_id,
            image_name: draft.image_name,
            spec: WorkspaceSpec {
                statuses: limits::statuses(&draft.limits, &|kind| self.enforceable(kind)),
                limits: draft.limits,
                nested: draft.nested,
                self_access: draft.self_access,
                unlimited: draft.unlimited,
                hostname: draft.hostname,
                labels: draft.labels,
                holder: draft.holder,
                command,
                idle_ms: draft.idle_ms,
                walls: None,
                ephemeral: draft.ephemeral,
                env_count: u64::try_from(draft.env.len()).expect("a usize fits"),
                env_lost: false,
            },
            lineage: draft.lineage,
            pid: None,
            start_time: None,
            uid_slot: None,
            secret: None,
            created_at: now,
            started_at: None,
            expires_at: draft.ttl_ms.map(|ms| after(now, ms)),
            last_active_at: now,
            base_snapshot: draft.base_snapshot,
        };
        let (env, disk) = (draft.env, draft.disk);
        Plan { reservation, hold, row, env, command_env, disk, start, like: None }
    }
}
