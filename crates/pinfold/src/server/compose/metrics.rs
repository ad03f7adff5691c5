//! What the server says of itself in numbers.

use std::{collections::BTreeMap, sync::Arc};

use pinfold_api::{
    Metrics,
    metrics::{Address, Audit, Certificate, Facts, Latency, Look, MetricsServer, Spans},
};
use pinfold_node::LocalNode;
use pinfold_store::{Store, audit::AuditLog};
use pinfold_telemetry::spans::Counts;
use pinfold_types::{Result, WorkspaceState, config::MetricsConfig};
use tokio_util::sync::CancellationToken;

use crate::{args::server::Up, tls::InForce};

/// Where metrics are served; nowhere by a server that a command started.
pub(super) fn address(config: &MetricsConfig, args: &Up) -> Result<Option<Address>> {
    let address = Address::of(config, args.metrics.as_deref())?;
    Ok(address.filter(|_| !args.on_demand))
}

/// Serves metrics until `stop`.
pub(super) async fn serve(
    address: Address,
    metrics: Metrics,
    look: Look,
    stop: CancellationToken,
) -> Result<()> {
    if let Some(server) = MetricsServer::bind(address, metrics, look).await? {
        if let Some(place) = server.local_address() {
            tracing::info!(%place, "metrics are served");
        }
        tokio::spawn(server.run(stop));
    }
    Ok(())
}

/// One look at the node, the store, the certificate and the recovery of this start.
pub(super) fn look(
    node: &LocalNode,
    store: &Store,
    audit: &AuditLog,
    certificate: Option<InForce>,
    spans: Option<Counts>,
) -> Look {
    let started_at_seconds = jiff::Timestamp::now().as_duration().as_secs_f64();
    let mut recovered = BTreeMap::new();
    for action in node.recovery() {
        let word = RECOVERY.iter().find(|word| **word == action.action).unwrap_or(&"other");
        *recovered.entry(*word).or_insert(0) += 1;
    }
    let (node, store, audit) = (node.clone(), store.clone(), audit.clone());
    Arc::new(move || {
        let (node, store, audit) = (node.clone(), store.clone(), audit.clone());
        let (recovered, certificate) = (recovered.clone(), certificate.clone());
        let spans = spans
            .as_ref()
            .map(|counts| Spans { exported: counts.exported(), dropped: counts.dropped() });
        Box::pin(async move {
            let mut workspaces: BTreeMap<&'static str, u64> =
                WorkspaceState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
            for workspace in node.list() {
                *workspaces.entry(workspace.state.as_str()).or_insert(0) += 1;
            }
            let counts = node.counts().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the node could not be looked at");
                pinfold_node::NodeCounts::default()
            });
            let stats = store.stats();
            Facts {
                version: env!("CARGO_PKG_VERSION"),
                started_at_seconds,
                workspaces,
                execs: counts.execs,
                boots: counts.boots,
                recovered,
                pool_bytes: counts.pool_bytes,
                pool_free_bytes: counts.pool_free_bytes,
                store_queued: u64::try_from(stats.queued).unwrap_or(u64::MAX),
                store_commits: Latency {
                    buckets: stats.commits,
                    sum_seconds: stats.commit_seconds,
                },
                audit: Some(Audit { healthy: audit.healthy().is_ok() }),
                spans,
                certificate: certificate.and_then(|in_force| in_force.validity()).map(|of| {
                    Certificate {
                        not_before_seconds: of.not_before,
                        not_after_seconds: of.not_after,
                    }
                }),
            }
        })
    })
}

/// What recovery may do, in its words.
const RECOVERY: &[&str] = &[
    "adopted",
    "finished",
    "kept without a disk",
    "marked failed",
    "marked stopped",
    "reclaimed",
    "undone",
];
