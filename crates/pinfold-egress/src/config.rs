//! What the operator allows beyond the rule.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// A destination that the operator named exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exception {
    /// Its addresses may be private, loopback or otherwise special.
    pub allow_private: bool,
    /// It may be spoken to without TLS.
    pub plain_http: bool,
    /// Root certificates (PEM) trusted for it besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Configuration of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressConfig {
    /// By exact `host:port`, as a URL writes the host. Nothing else widens what may be reached.
    pub exceptions: BTreeMap<String, Exception>,
}

/// The only way out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<EgressConfig>,
}

impl Client {
    /// A client that reaches public addresses over TLS, and what `config` names.
    pub fn new(config: EgressConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// What the operator allowed.
    pub fn config(&self) -> &EgressConfig {
        &self.config
    }
}
