//! What the operator allows beyond the rule.

use std::{collections::BTreeMap, path::PathBuf};

use pinfold_types::config::ImagesConfig;

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

impl EgressConfig {
    /// The exceptions that `[images.registries]` asks for. A host without a port means 443.
    pub fn from_images(images: &ImagesConfig) -> Self {
        let exceptions = images
            .registries
            .iter()
            .map(|(host, registry)| {
                let key = if has_port(host) { host.clone() } else { format!("{host}:443") };
                let exception = Exception {
                    allow_private: registry.allow_private,
                    plain_http: registry.plain_http,
                    ca_file: registry.ca_file.clone(),
                };
                (key.to_ascii_lowercase(), exception)
            })
            .collect();
        Self { exceptions }
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && (!before.contains(':') || before.ends_with(']'))
    })
}
