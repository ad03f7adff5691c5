//! What an operator lives by: metrics, alerts, logs, backups.

mod backup;
mod logs;
mod metrics;
