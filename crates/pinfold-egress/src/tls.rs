//! TLS with the system's trust store, read once, and an operator's extra roots.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::error::EgressError;

static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 || !found.errors.is_empty() {
        tracing::debug!(ignored, errors = found.errors.len(), "parts of the trust store are odd");
    }
    roots
});

/// HTTP/1.1 over TLS 1.2 or 1.3; roots are the system's and those in `ca_file`.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, EgressError> {
    let mut roots = SYSTEM.clone();
    if let Some(path) = ca_file {
        let refuse = |why: String| EgressError::CaFile { path: path.display().to_string(), why };
        let mut count = 0;
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|err| refuse(err.to_string()))?
        {
            let certificate = certificate.map_err(|err| refuse(err.to_string()))?;
            roots.add(certificate).map_err(|err| refuse(err.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(refuse("it holds no certificate".into()));
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
