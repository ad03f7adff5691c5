//! How rooms tell of operations for OpenTelemetry: spans of `tracing` with [`TARGET`], whose fields
//! are the attributes. Nothing else is exported, and the log has none of them.
//!
//! A field holds a word of ours, a number, or an id. Names, paths, commands, contents, addresses and
//! credentials are nobody's to put there.

/// The target of spans that are exported.
pub const TARGET: &str = "pinfold::spans";
/// The field of what a caller's trace context (W3C `traceparent`) says.
pub const TRACEPARENT: &str = "traceparent";
