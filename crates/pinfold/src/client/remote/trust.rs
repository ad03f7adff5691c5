//! Whom the certificate of a server elsewhere must be from: a pinned authority, one from a file,
//! or those that this machine trusts.

use std::{path::Path, sync::Arc};

use pinfold_types::{Error, ErrorCode, Result, name::excerpt};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::tls::fingerprint;

/// HTTP/1.1 over TLS 1.2 or 1.3.
pub(super) fn config(pin: Option<&str>, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    let mut config = match (pin, ca_file) {
        (Some(_), Some(_)) => {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "--ca-pin and --ca-file are two answers to one question",
            )
            .hint("keep one of them"));
        }
        (Some(pin), None) => {
            let pinned = Pinned { fingerprint: check_pin(pin)?, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        }
        (None, Some(path)) => builder.with_root_certificates(from_file(path)?),
        (None, None) => builder.with_root_certificates(of_this_machine()),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn check_pin(pin: &str) -> Result<String> {
    let digits = pin.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(pin.to_ascii_lowercase());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("{:?} is not the fingerprint of an authority", excerpt(pin)),
    )
    .hint("it is sha256: and 64 hexadecimal digits, as `pinfold ca show` prints it on the server"))
}

fn from_file(path: &Path) -> Result<RootCertStore> {
    let refuse = |why: &dyn std::fmt::Display| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("{} holds no certificate of an authority: {why}", path.display()),
        )
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refuse(&error))? {
        let certificate = certificate.map_err(|error| refuse(&error))?;
        roots.add(certificate).map_err(|error| refuse(&error))?;
    }
    if roots.is_empty() { Err(refuse(&"it holds none")) } else { Ok(roots) }
}

fn of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // What cannot be read trusts nobody.
    let _ignored = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Trusts one authority, known by the fingerprint of its certificate, which the server sends along.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    /// The pinned authority is in the chain, and the rest is verified as ever: signatures, dates,
    /// and that the certificate is for this name.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
