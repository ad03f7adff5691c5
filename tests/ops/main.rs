//! What an operator lives by: metrics, alerts, logs, backups.

mod aside;
mod backup;
mod first_token;
mod logs;
mod metrics;
mod profiling;
mod traces;
mod wire;
