//! Spans of operations, sent to a collector of OpenTelemetry (OTLP over HTTP, protobuf).
//!
//! A collector that is slow, dead or hostile costs the server nothing but a bounded queue: what
//! does not fit is dropped and counted, answers are not read beyond their status, redirects are not
//! followed, and the last flush at the end of the server has a time limit.

mod context;
mod export;
mod layer;
mod proto;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pinfold_types::{Result, config::TelemetryConfig};
use tokio::sync::mpsc;

pub use self::{export::Exporter, layer::SpanLayer};

/// Most spans that wait.
const QUEUE: usize = 4096;
/// Most spans of one request to the collector.
const BATCH: usize = 512;
/// A span waits at most this long for others.
const WAIT: Duration = Duration::from_secs(1);
/// One request to the collector, answer included.
const REQUEST: Duration = Duration::from_secs(5);
/// Everything that is sent after the server was told to end.
const FLUSH: Duration = Duration::from_secs(2);

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<[AtomicU64; 2]>);

impl Counts {
    /// Spans that the collector took.
    pub fn exported(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Spans that found no room, or that the collector did not take.
    pub fn dropped(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    fn count_exported(&self, spans: usize) {
        self.0[0].fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn count_dropped(&self, spans: usize) {
        self.0[1].fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The layer that takes spans and the exporter that sends them; `None` where the configuration
/// names no collector.
///
/// # Errors
/// When the endpoint is no URL that may be reached, or the file of its credential is not private.
pub fn of(
    config: &TelemetryConfig,
    version: &'static str,
) -> Result<Option<(SpanLayer, Exporter)>> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counts = Counts::default();
    let exporter = Exporter::new(endpoint, config, version, receiver, counts.clone())?;
    Ok(Some((SpanLayer::new(sender, counts), exporter)))
}
