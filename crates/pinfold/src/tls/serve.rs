//! The certificate in force, and its renewal.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use pinfold_types::{
    Error, Result,
    config::{Config, TlsMode},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use super::{
    authority::Authority,
    files::{Files, State},
    names::names,
    validity::Validity,
};
use crate::home::Home;

/// Files are looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// A certificate of the local authority, good for thirty days, is replaced after this long.
const RENEW: Duration = Duration::from_hours(24 * 10);

/// Where certificates come from, and the one in force.
#[derive(Debug)]
pub(crate) struct Certificates {
    source: Source,
    current: Arc<Current>,
}

#[derive(Debug)]
enum Source {
    Files(Files, Option<State>),
    Local(Authority, Vec<String>),
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Current {
    fn replace(&self, with: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = with;
    }
}

/// The certificate in force, to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct InForce(Arc<Current>);

impl InForce {
    /// From when until when it is good.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let key = Arc::clone(&self.0.0.read().unwrap_or_else(PoisonError::into_inner));
        key.cert.first().and_then(|certificate| Validity::of(certificate))
    }
}

impl Certificates {
    /// The certificates that the configuration asks for; `None` without TLS.
    ///
    /// # Errors
    /// When files are missing, open to others or do not fit, or no authority can be made.
    pub(crate) fn of(
        home: &Home,
        config: &Config,
        addresses: &[SocketAddr],
    ) -> Result<Option<Self>> {
        let server = &config.server;
        let source = match (&server.tls, &server.tls_cert, &server.tls_key) {
            (None, Some(certificate), Some(key)) => {
                let within = |path: &PathBuf| home.path().join(path);
                let files = Files { certificate: within(certificate), key: within(key) };
                // Before they are read: a change in between is then seen as one.
                let state = files.state();
                Source::Files(files, state)
            }
            (Some(TlsMode::LocalCa), _, _) => {
                Source::Local(Authority::find_or_make(home)?, names(config, addresses))
            }
            _ => return Ok(None),
        };
        let first = source.load()?;
        Ok(Some(Self { source, current: Arc::new(Current(RwLock::new(first))) }))
    }

    /// What the listeners speak: HTTP/1.1 over TLS 1.2 or 1.3.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&self.current);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The certificate in force, now and after each renewal.
    pub(crate) fn in_force(&self) -> InForce {
        InForce(Arc::clone(&self.current))
    }

    /// The fingerprint that clients pin, where the authority is this home's.
    pub(crate) fn pin(&self) -> Option<String> {
        match &self.source {
            Source::Local(authority, _) => Some(authority.fingerprint()),
            Source::Files(..) => None,
        }
    }

    /// Renews until `stop`. What cannot be read leaves the certificate that is in force.
    pub(crate) async fn renew(mut self, stop: CancellationToken) {
        let every = match self.source {
            Source::Files(..) => LOOK,
            Source::Local(..) => RENEW,
        };
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if !self.source.changed() {
                continue;
            }
            match self.source.load() {
                Ok(fresh) => {
                    self.current.replace(fresh);
                    tracing::info!("the server's certificate was renewed");
                }
                Err(error) => tracing::warn!(
                    hint = error.hint,
                    "the server's certificate stays as it is: {error}"
                ),
            }
        }
    }
}

impl Source {
    fn load(&self) -> Result<Arc<CertifiedKey>> {
        match self {
            Self::Files(files, _) => files.load(),
            Self::Local(authority, names) => authority.issue(names),
        }
    }

    /// Whether there is something new to load. Each state of the files is tried once.
    fn changed(&mut self) -> bool {
        match self {
            Self::Local(..) => true,
            Self::Files(files, known) => {
                let now = files.state();
                let changed = now.is_some() && now != *known;
                *known = now;
                changed
            }
        }
    }
}
