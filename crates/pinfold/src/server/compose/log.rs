//! The server's log, on standard error: a terminal, a service manager's journal, or server.log.

use std::io;

use pinfold_telemetry::spans::SpanLayer;
use pinfold_types::{
    Error, ErrorCode, Result,
    config::{LogFormat, ServerConfig},
    spans,
};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Whether something may be in the log, whatever the configuration asks for. The MCP library tells
/// of whole messages below `warn`: arguments, contents of files, output of commands.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    // What is told for a collector is not the log's.
    if metadata.target() == spans::TARGET {
        return false;
    }
    let library = metadata.target() == "rmcp" || metadata.target().starts_with("rmcp::");
    !library || *metadata.level() <= Level::WARN
}

/// Starts it, and sends panics to it.
pub(super) fn start(config: &ServerConfig, spans: Option<SpanLayer>) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("server.log of {:?} is not a log filter: {error}", config.log),
        )
        .hint("write a level such as info, or target=level pairs")
    })?;
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let filter = filter.and(filter_fn(may_be_written));
    let spans = spans.map(|layer| layer.with_filter(SpanLayer::filter()));
    let registry = tracing_subscriber::registry().with(spans);
    let started = match config.log_format {
        LogFormat::Text => registry.with(layer.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(layer.json().with_filter(filter)).try_init(),
    };
    started.map_err(Error::internal)?;
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string);
        tracing::error!(place, "panic: a fault of ours");
        next(info);
    }));
    Ok(())
}
