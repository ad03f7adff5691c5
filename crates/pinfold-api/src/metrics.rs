//! Numbers about requests, for Prometheus. A label's values come from the operation table and
//! other fixed sets: nothing that a caller sends becomes one.

mod facts;
mod listen;
mod operations;
mod text;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode};
use pinfold_auth::{
    OperationInfo,
    operation::{RateClass, Reply},
};
use pinfold_types::{Error, ErrorCode};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use facts::{Audit, Certificate, Facts, Latency, Spans};
pub use listen::{Address, Look, MetricsServer};

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Seconds: a no-op takes some hundred microseconds, a pull many minutes.
const LATENCY: [f64; 12] =
    [0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0];
/// What is not in the operation table: no such route, a page, another protocol.
const OTHER: &str = "other";

/// The numbers of one server. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    requests: Family<Labels<3>, Counter>,
    latency: Family<Labels<1>, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    streams: Gauge,
    refusals: Family<Labels<1>, Counter>,
    rate_limited: Family<Labels<1>, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let latency: fn() -> Histogram = || Histogram::new(LATENCY);
        let inner = Inner {
            registry: Mutex::new(Registry::with_prefix("pinfold")),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency),
            in_flight: Gauge::default(),
            streams: Gauge::default(),
            refusals: Family::default(),
            rate_limited: Family::default(),
        };
        inner.register();
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn register(&self) {
        let mut all = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        all.register(
            "requests",
            "Requests answered, by operation, surface and class of status",
            self.requests.clone(),
        );
        all.register(
            "request_duration_seconds",
            "Time from a request's head to its answer's head, by group of operations",
            self.latency.clone(),
        );
        all.register("requests_in_flight", "Requests under way", self.in_flight.clone());
        all.register("streams_open", "WebSocket streams that are open", self.streams.clone());
        all.register("refusals", "Requests that failed, by error code", self.refusals.clone());
        all.register(
            "rate_limit_refusals",
            "Requests over a rate or count limit, by rate class",
            self.rate_limited.clone(),
        );
        // Series that alerts are made of are there before their first event, so that a rate sees
        // it happen.
        for code in ErrorCode::ALL {
            drop(self.refusals.get_or_create(&[("code", code.as_str())]));
        }
        for class in RateClass::ALL {
            drop(self.rate_limited.get_or_create(&[("class", class.as_str())]));
        }
    }
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct Request {
    metrics: Metrics,
    operation: Option<&'static OperationInfo>,
    surface: &'static str,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.metrics.0.in_flight.dec();
    }
}

/// One open stream; counts until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Metrics);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.streams.dec();
    }
}

impl Metrics {
    /// Counts a request in. `route` is the pattern that matched.
    pub(crate) fn begin(
        &self,
        method: &Method,
        route: Option<&str>,
        connection: &'static str,
    ) -> Request {
        self.0.in_flight.inc();
        let operation = route.and_then(|route| operations::find(method, route));
        let surface = match operation {
            Some(info) if info.reply == Reply::WebSocket => "websocket",
            _ if route.is_some_and(|route| route == "/mcp" || route.starts_with("/mcp/")) => "mcp",
            _ => connection,
        };
        Request { metrics: self.clone(), operation, surface }
    }

    /// Counts a stream until what is returned is dropped.
    pub(crate) fn stream(&self) -> OpenStream {
        self.0.streams.inc();
        OpenStream(self.clone())
    }

    /// All numbers in Prometheus' text format.
    pub fn render(&self, facts: &Facts) -> Result<String, Error> {
        let mut text = String::with_capacity(32 << 10);
        {
            let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
            text::encode(&mut text, &registry).map_err(Error::internal)?;
        }
        let mut looked = Registry::with_prefix("pinfold");
        looked.register_collector(Box::new(facts.clone()));
        text::encode(&mut text, &looked).map_err(Error::internal)?;
        Ok(text::prometheus(&text))
    }
}

impl Request {
    /// The operation's name.
    pub(crate) fn operation(&self) -> &'static str {
        self.operation.map_or(OTHER, |info| info.name)
    }

    /// Where it came in.
    pub(crate) const fn surface(&self) -> &'static str {
        self.surface
    }

    /// Counts the answer.
    pub(crate) fn answered(&self, status: StatusCode, failed: Option<ErrorCode>, took: Duration) {
        let inner = &*self.metrics.0;
        let name = self.operation();
        let class = match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let labels = [("operation", name), ("surface", self.surface), ("status", class)];
        inner.requests.get_or_create(&labels).inc();
        let group = name.split_once('.').map_or(name, |(noun, _)| noun);
        inner.latency.get_or_create(&[("group", group)]).observe(took.as_secs_f64());
        if let Some(code) = failed {
            inner.refusals.get_or_create(&[("code", code.as_str())]).inc();
            if code == ErrorCode::RateLimited {
                let class = self.operation.map_or(OTHER, |info| info.rate.as_str());
                inner.rate_limited.get_or_create(&[("class", class)]).inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_names_of_the_table_only() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(2);
        let known = metrics.begin(&Method::GET, Some("/api/v1/workspaces/{ref}"), "unix");
        known.answered(StatusCode::NOT_FOUND, Some(ErrorCode::NotFound), took);
        let limited = metrics.begin(&Method::POST, Some("/api/v1/workspaces"), "http");
        limited.answered(StatusCode::TOO_MANY_REQUESTS, Some(ErrorCode::RateLimited), took);
        let unknown = metrics.begin(&Method::GET, None, "unix");
        unknown.answered(StatusCode::NOT_FOUND, None, took);
        let text = metrics.render(&Facts::default()).expect("text");
        for line in [
            "pinfold_requests_total{operation=\"workspace.read\",surface=\"unix\",status=\"4xx\"} 1",
            "pinfold_requests_total{operation=\"other\",surface=\"unix\",status=\"4xx\"} 1",
            "pinfold_rate_limit_refusals_total{class=\"create\"} 1",
            "pinfold_refusals_total{code=\"not_found\"} 1",
            "pinfold_refusals_total{code=\"unauthenticated\"} 0",
            "pinfold_request_duration_seconds_bucket{le=\"0.003\",group=\"workspace\"} 2",
            "pinfold_requests_in_flight 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        drop((known, limited, unknown));
        let stream = metrics.stream();
        let text = metrics.render(&Facts::default()).expect("text");
        assert!(text.contains("pinfold_requests_in_flight 0\n"), "{text}");
        assert!(text.contains("pinfold_streams_open 1\n"), "{text}");
        drop(stream);
    }
}
