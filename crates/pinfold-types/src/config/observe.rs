//! `[profiling]` and `[telemetry]`: what the server tells of itself to tools of the operator.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode};

/// `[profiling]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfilingConfig {
    /// Where profiles are served: a loopback address and a port, 6060 by custom. Absent: nowhere.
    /// A server that a command started by itself serves none.
    pub listen: Option<SocketAddr>,
}

impl ProfilingConfig {
    /// Refuses an address that other machines can reach: nobody is asked for a credential there.
    pub fn check(&self) -> Result<(), Error> {
        match self.listen {
            Some(address) if !address.ip().to_canonical().is_loopback() => Err(Error::new(
                ErrorCode::CannotEnforce,
                format!("profiling.listen of {address} is beyond loopback, and profiles are not"),
            )
            .hint(
                "write 127.0.0.1:6060, and reach it from elsewhere through a tunnel: \
                 ssh -L 6060:127.0.0.1:6060 HOST",
            )),
            _ => Ok(()),
        }
    }
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Base URL of a collector that takes OTLP over HTTP; `/v1/traces` is added. Absent: nothing is
    /// sent.
    pub endpoint: Option<String>,
    /// The collector may have a private or loopback address.
    pub allow_private: bool,
    /// It may be spoken to without TLS.
    pub plain_http: bool,
    /// One more root certificate for it, PEM.
    pub ca_file: Option<PathBuf>,
    /// A file, 0600, with the value of the header `Authorization`.
    pub authorization_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn profiles_stay_on_loopback() {
        assert_eq!(Config::parse("").expect("empty").profiling.listen, None);
        for (address, fine) in [
            ("127.0.0.1:6060", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:6060", false),
            ("[::]:6060", false),
            ("192.0.2.1:6060", false),
            ("localhost:6060", false),
        ] {
            let read = Config::parse(&format!("[profiling]\nlisten = \"{address}\""));
            assert_eq!(read.is_ok(), fine, "{address}");
        }
    }
}
