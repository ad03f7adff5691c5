//! The server's log, on standard error: a terminal, a service manager's journal, or server.log.

use std::io;

use pinfold_types::{
    Error, ErrorCode, Result,
    config::{LogFormat, ServerConfig},
};
use tracing_subscriber::EnvFilter;

/// Starts it, and sends panics to it.
pub(super) fn start(config: &ServerConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("server.log of {:?} is not a log filter: {error}", config.log),
        )
        .hint("write a level such as info, or target=level pairs")
    })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
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
