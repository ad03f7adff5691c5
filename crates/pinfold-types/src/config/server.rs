//! `[server]`, `[streams]` and `[terminals]`: how the server is reached, and by whom.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Host, Origin};
use crate::{Error, ErrorCode};

/// Where `pinfold up` listens when nothing else is said.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7070);

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// A server that a command started by itself leaves after this long without work.
    pub idle_exit_ms: u64,
    /// Log filter, in the syntax of tracing-subscriber's `EnvFilter`.
    pub log: String,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// Most connections at once: of the unix socket, and as many again of all TCP addresses.
    pub max_connections: u32,
    /// TCP addresses to listen on beside the unix socket; empty for none. Absent: 127.0.0.1:7070
    /// for `pinfold up`, and none for a server that a command started by itself.
    pub listen: Option<Vec<SocketAddr>>,
    /// Where the certificate comes from when not from `tls_cert` and `tls_key`.
    pub tls: Option<TlsMode>,
    /// Certificate chain, PEM, the server's own certificate first.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM, readable by its owner alone.
    pub tls_key: Option<PathBuf>,
    /// Origins of web pages that may call from another origin, exact.
    pub origins: Vec<Origin>,
    /// Names under which the server may be called, beside the loopback names and its addresses.
    pub hosts: Vec<Host>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            idle_exit_ms: 60_000,
            log: "info".into(),
            log_format: LogFormat::Text,
            max_connections: 4096,
            listen: None,
            tls: None,
            tls_cert: None,
            tls_key: None,
            origins: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl ServerConfig {
    /// The TCP addresses in force: those of the file, or the default where a server was started
    /// on purpose.
    pub fn addresses(&self, on_demand: bool) -> Vec<SocketAddr> {
        match &self.listen {
            Some(listen) => listen.clone(),
            None if on_demand => Vec::new(),
            None => vec![DEFAULT_LISTEN],
        }
    }

    /// Whether connections over TCP are encrypted.
    pub const fn has_tls(&self) -> bool {
        self.tls.is_some() || self.tls_cert.is_some()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |why: &str, mend: &str| {
            Err(Error::new(ErrorCode::InvalidArgument, why).hint(mend.to_owned()))
        };
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return bad(
                "server.tls_cert and server.tls_key belong together, and one is missing",
                "give both, or write tls = \"local-ca\"",
            );
        }
        if self.tls.is_some() && self.tls_cert.is_some() {
            return bad(
                "server.tls and server.tls_cert are two answers to one question",
                "keep one of them",
            );
        }
        if self.max_connections == 0 {
            return bad("server.max_connections must be at least 1", "leave it out for 4096");
        }
        Ok(())
    }
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// An authority of this home, made at the first start; clients pin it.
    LocalCa,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `[streams]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamsConfig {
    /// Most `WebSockets` that one principal has open at once.
    pub max_per_principal: u32,
    /// A stream is closed at this age. What runs goes on; a client attaches again.
    pub max_age_ms: u64,
    /// A stream is closed when neither side has sent anything for this long.
    pub idle_ms: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        // A week, and a day.
        Self { max_per_principal: 1024, max_age_ms: 604_800_000, idle_ms: 86_400_000 }
    }
}

impl StreamsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.max_per_principal > 0 && self.max_age_ms > 0 && self.idle_ms > 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::InvalidArgument,
            "streams.max_per_principal, streams.max_age_ms and streams.idle_ms must be at least 1",
        ))
    }
}

/// `[terminals]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TerminalsConfig {
    /// Terminals for peers beyond loopback; only over TLS (AX-12).
    pub remote: bool,
}
