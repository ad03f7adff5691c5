//! Numbers that are looked up when they are asked for: what the server, its node, store and log
//! say of themselves.

use std::collections::BTreeMap;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Upper bounds in seconds, and how many took at most so long and longer than the one before;
    /// the last bound is infinity.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds of all together.
    pub sum_seconds: f64,
}

/// The audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Whether it can be written.
    pub healthy: bool,
}

/// The certificate that TLS is served with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// From when on it is good, in seconds since 1970.
    pub not_before_seconds: i64,
    /// Until when, in seconds since 1970.
    pub not_after_seconds: i64,
}

/// What became of spans for a collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// It took them.
    pub exported: u64,
    /// They found no room, or it did not take them.
    pub dropped: u64,
}

/// One look at everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Version of the program.
    pub version: &'static str,
    /// When the server started, in seconds since 1970.
    pub started_at_seconds: f64,
    /// Workspaces by state; each state is a word of ours.
    pub workspaces: BTreeMap<&'static str, u64>,
    /// Commands started.
    pub execs: u64,
    /// Boots whose guest answered.
    pub boots: u64,
    /// What recovery did at the start, by action.
    pub recovered: BTreeMap<&'static str, u64>,
    /// Size of the pool.
    pub pool_bytes: u64,
    /// Room in the pool.
    pub pool_free_bytes: u64,
    /// Changes that wait for the state database.
    pub store_queued: u64,
    /// Commits of the state database.
    pub store_commits: Latency,
    /// The audit log, where there is one.
    pub audit: Option<Audit>,
    /// The certificate in force, where there is TLS.
    pub certificate: Option<Certificate>,
    /// Spans, where there is a collector.
    pub spans: Option<Spans>,
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 8 PiB")]
const fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "seconds of any year that a certificate can name")]
const fn signed(value: i64) -> f64 {
    value as f64
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &BTreeMap<&'static str, u64>,
    ) -> std::fmt::Result {
        let mut all = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            let labels = [(label, *word)];
            let gauge = ConstGauge::new(float(*value));
            gauge.encode(family(&mut all, &labels)?)?;
        }
        Ok(())
    }
}

fn family<'a, S: EncodeLabelSet>(
    all: &'a mut prometheus_client::encoding::MetricEncoder<'_>,
    labels: &'a S,
) -> Result<prometheus_client::encoding::MetricEncoder<'a>, std::fmt::Error> {
    all.encode_family(labels)
}

impl Collector for Facts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut to = Writer(encoder);
        let build = BTreeMap::from([(self.version, 1)]);
        to.gauges("build_info", "The program that runs", "version", &build)?;
        let started = "When the server started, in seconds since 1970";
        to.gauge("start_time_seconds", started, self.started_at_seconds)?;
        to.gauges("workspaces", "Workspaces by state", "state", &self.workspaces)?;
        to.counter("execs_started", "Commands started in workspaces", self.execs)?;
        to.counter("boots", "Boots of workspaces whose guest answered", self.boots)?;
        let recovered = "What recovery did when the server started, by action";
        to.gauges("recovery_actions", recovered, "action", &self.recovered)?;
        to.gauge("pool_size_bytes", "Size of the pool of disks", float(self.pool_bytes))?;
        to.gauge("pool_free_bytes", "Room in the pool of disks", float(self.pool_free_bytes))?;
        let queued = "Changes that wait for the state database";
        to.gauge("store_queue", queued, float(self.store_queued))?;
        let commits = to.0.encode_descriptor(
            "store_commit_duration_seconds",
            "Time of commits of the state database, the disk's part included",
            None,
            MetricType::Histogram,
        );
        let count = self.store_commits.buckets.iter().map(|(_, count)| count).sum();
        commits?.encode_histogram::<NoLabelSet>(
            self.store_commits.sum_seconds,
            count,
            &self.store_commits.buckets,
            None,
        )?;
        if let Some(audit) = &self.audit {
            let healthy = "Whether the audit log can be written";
            to.gauge("audit_healthy", healthy, f64::from(u8::from(audit.healthy)))?;
        }
        if let Some(spans) = &self.spans {
            let exported = "Spans that the collector took";
            to.counter("telemetry_spans_exported", exported, spans.exported)?;
            let dropped = "Spans that found no room, or that the collector did not take";
            to.counter("telemetry_spans_dropped", dropped, spans.dropped)?;
        }
        if let Some(certificate) = &self.certificate {
            for (name, help, seconds) in [
                (
                    "tls_certificate_not_before_timestamp_seconds",
                    "When the certificate in force begins to be good, in seconds since 1970",
                    certificate.not_before_seconds,
                ),
                (
                    "tls_certificate_not_after_timestamp_seconds",
                    "When the certificate in force ends, in seconds since 1970",
                    certificate.not_after_seconds,
                ),
            ] {
                to.gauge(name, help, signed(seconds))?;
            }
        }
        Ok(())
    }
}
