//! The authority of a home. Its key and certificate stand in one file, `keys/ca.pem`, so that
//! there is no moment with one and without the other. Clients pin the certificate by its
//! fingerprint; the server's own certificates live for a month and their keys never touch a disk.

use std::{io, sync::Arc};

use pinfold_types::{Error, ErrorCode, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};

use super::files;
use crate::{home::Home, private};

/// Subject of every authority: clients tell them apart by fingerprint, not by name.
const SUBJECT: &str = "Pinfold local authority";
/// How long an authority is good for.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a server's certificate is good for.
const LEAF_DAYS: i64 = 30;
/// Clocks of clients may be behind.
const SKEW_DAYS: i64 = 1;

/// An authority that can sign.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of this home, if it has one.
    ///
    /// # Errors
    /// When its file is open to others, or is not what was written.
    pub(crate) fn find(home: &Home) -> Result<Option<Self>> {
        let path = home.authority();
        if let Err(error) = path.symlink_metadata()
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(None);
        }
        let text = files::private(&path)?;
        let broken = |why: &dyn std::fmt::Display| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{} does not hold an authority: {why}", path.display()),
            )
            .hint("restore it from a backup; without it, remove it and let clients pin a new one")
        };
        let certificate = CertificateDer::from_pem_slice(&text).map_err(|error| broken(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| broken(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| broken(&error))?;
        Ok(Some(Self { certificate, key }))
    }

    /// The authority of this home; made when there is none.
    ///
    /// # Errors
    /// As [`Authority::find`], and when it cannot be written.
    pub(crate) fn find_or_make(home: &Home) -> Result<Self> {
        if let Some(found) = Self::find(home)? {
            return Ok(found);
        }
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut params = authority_params();
        valid(&mut params, AUTHORITY_DAYS)?;
        let certificate = params.self_signed(&key).map_err(Error::internal)?;
        write(home, &format!("{}{}", certificate.pem(), key.serialize_pem()))?;
        Ok(Self { certificate: certificate.der().clone(), key })
    }

    /// `sha256:` and the digest of the certificate, as clients pin it.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// The certificate alone, PEM.
    pub(crate) fn pem(&self) -> String {
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        let base64 = data_encoding::BASE64.encode(&self.certificate);
        for line in base64.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }

    /// A fresh certificate for a server with these names, with a fresh key, and the authority's
    /// own certificate after it so that a client with only the fingerprint can check both.
    pub(crate) fn issue(&self, names: &[String]) -> Result<Arc<CertifiedKey>> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(Error::internal)?;
        valid(&mut params, LEAF_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, "Pinfold");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(Error::internal)?;
        let issuer = Issuer::new(authority_params(), &self.key);
        let leaf = params.signed_by(&key, &issuer).map_err(Error::internal)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map(Arc::new)
            .map_err(Error::internal)
    }
}

/// `sha256:` and the digest of a certificate in lower case.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(certificate)))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, SUBJECT);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Good from now on, with an allowance for clocks, for so many days.
fn valid(params: &mut CertificateParams, days: i64) -> Result<()> {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let parts = |days: i64| {
        let date = today.checked_add(jiff::Span::new().days(days)).map_err(Error::internal)?;
        let month = u8::try_from(date.month()).map_err(Error::internal)?;
        let day = u8::try_from(date.day()).map_err(Error::internal)?;
        Ok::<_, Error>((i32::from(date.year()), month, day))
    };
    let (year, month, day) = parts(-SKEW_DAYS)?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = parts(days)?;
    params.not_after = date_time_ymd(year, month, day);
    Ok(())
}

/// Writes the file whole or not at all, 0600 from its first byte.
fn write(home: &Home, text: &str) -> Result<()> {
    let path = home.authority();
    let failed = |error: io::Error| {
        Error::new(ErrorCode::Unavailable, format!("{} cannot be written: {error}", path.display()))
    };
    private::directory(&home.keys()).map_err(failed)?;
    private::write(&path, text.as_bytes()).map_err(failed)
}
