//! Why something was not reached.

use std::{io, net::IpAddr};

use pinfold_types::{Error, ErrorCode};

/// A refusal or a failure on the way out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The URL broke a rule.
    #[error("{url:?} is not a URL that may be fetched: {why}")]
    BadUrl {
        /// What was asked for, without credentials, cut short.
        url: String,
        /// The rule.
        why: &'static str,
    },
    /// The guard refused the destination.
    #[error("{host} may not be reached: {why}")]
    Denied {
        /// Host as parsed.
        host: String,
        /// The rule.
        why: String,
    },
    /// The name has no address.
    #[error("{host} has no address")]
    Unresolved {
        /// Host as parsed.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// No checked address answered.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host as parsed.
        host: String,
        /// The last address tried.
        address: Option<IpAddr>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("cannot trust {host}")]
    Tls {
        /// Host as parsed.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer was not HTTP, or broke off.
    #[error("{host} did not answer properly")]
    Protocol {
        /// Host as parsed.
        host: String,
        /// Why.
        detail: String,
    },
    /// A time limit passed.
    #[error("{host} took longer than {limit_ms} ms to {what}")]
    Timeout {
        /// Host as parsed.
        host: String,
        /// Doing what.
        what: &'static str,
        /// The limit.
        limit_ms: u128,
    },
    /// The answer is longer than allowed.
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLarge {
        /// Host as parsed.
        host: String,
        /// The limit.
        limit: u64,
    },
    /// Redirected too often, or to where it may not.
    #[error("{host} redirected {why}")]
    Redirect {
        /// Host as parsed.
        host: String,
        /// The rule.
        why: &'static str,
    },
    /// A certificate file of the operator's cannot be used.
    #[error("the certificate file {path} cannot be used: {why}")]
    CaFile {
        /// Path from the configuration.
        path: String,
        /// Why.
        why: String,
    },
}

impl From<EgressError> for Error {
    fn from(error: EgressError) -> Self {
        let text = error.to_string();
        match error {
            EgressError::BadUrl { .. } | EgressError::CaFile { .. } => {
                Self::new(ErrorCode::InvalidArgument, text)
            }
            EgressError::Denied { .. } | EgressError::Redirect { .. } => {
                Self::new(ErrorCode::EgressDenied, text).hint(
                    "to reach a private registry name its exact host:port under \
                     [images.registries] in config.toml",
                )
            }
            EgressError::Connect { source, address, .. } => {
                Self::new(ErrorCode::Upstream, format!("{text}: {}", source.kind()))
                    .context(format!("{address:?}: {source}"))
            }
            EgressError::Tls { source, .. } => {
                Self::new(ErrorCode::Upstream, format!("{text}: {source}")).hint(
                    "when the certificate is signed by a private authority, set ca_file for \
                     this host under [images.registries]",
                )
            }
            EgressError::Unresolved { detail, .. } | EgressError::Protocol { detail, .. } => {
                Self::new(ErrorCode::Upstream, text).context(detail)
            }
            EgressError::Timeout { .. } => Self::new(ErrorCode::Timeout, text),
            EgressError::TooLarge { .. } => Self::new(ErrorCode::TooLarge, text),
        }
    }
}
