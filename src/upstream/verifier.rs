//! Which server certificates are trusted: those of which a chain leads to an anchor of the bundle,
//! and those that are in the bundle themselves, byte for byte.
//!
//! The second rule is for API servers and load balancers whose own certificate was put into the
//! bundle because there is no CA. Such a certificate vouches for nothing but itself. Dates, name and
//! extended key usage are checked as for any other, and the signature of the handshake is verified
//! by rustls: who has the certificate without its key gets no token.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::oid::db::DB;
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::der::oid::db::rfc5912::RSA_ENCRYPTION;
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::bundle::{Bundle, Certificate, must_not_sign};
use super::expiry::Validity;
use crate::locks::lock;

#[derive(Debug)]
pub(super) struct Verifier {
    /// All certificates of the bundle.
    bundle: Vec<CertificateDer<'static>>,
    /// `None`: the bundle has no anchor.
    chains: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
    shown: Shown,
}

/// The validity of the certificate that the server showed last and that was trusted.
pub(super) type Shown = Arc<Mutex<Option<Validity>>>;

impl Verifier {
    pub(super) fn new(bundle: &Bundle, provider: &Arc<CryptoProvider>, shown: Shown) -> Self {
        let anchors = Arc::new(bundle.anchors());
        let chains = WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(provider));
        Self {
            bundle: bundle.certificates.iter().map(|it| it.der.clone()).collect(),
            // It fails only when there is no anchor.
            chains: chains.build().ok(),
            algorithms: provider.signature_verification_algorithms,
            shown,
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.bundle.iter().any(|certificate| certificate == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            verify_dates_and_usage(end_entity, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let Some(chains) = &self.chains else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let usable: Vec<_> =
            intermediates.iter().filter(|it| !must_not_sign(it)).cloned().collect();
        chains.verify_server_cert(end_entity, &usable, server_name, ocsp_response, now).map_err(
            |error| {
                let presented = [end_entity].into_iter().chain(intermediates);
                explain(error, presented.chain(&self.bundle))
            },
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verify(end_entity, intermediates, server_name, ocsp_response, now)?;
        *lock(&self.shown) = validity(end_entity);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
            .map_err(|error| explain(error, [certificate]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
            .map_err(|error| explain(error, [certificate]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// An RSA key that is too short to be trusted, and its length in bits.
#[derive(Debug)]
struct ShortRsaKey(usize);

impl fmt::Display for ShortRsaKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a key of RSA with {} bits; it must have 2048 at least", self.0)
    }
}

impl std::error::Error for ShortRsaKey {}

/// Says of a signature that cannot be verified when the reason is a short key among `certificates`.
fn explain<'a>(
    error: Error,
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Error {
    if error != Error::InvalidCertificate(CertificateError::BadSignature) {
        return error;
    }
    match certificates.into_iter().find_map(|certificate| short_rsa_key(certificate)) {
        Some(key) => CertificateError::Other(OtherError(Arc::new(key))).into(),
        None => error,
    }
}

fn short_rsa_key(certificate: &[u8]) -> Option<ShortRsaKey> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let key = parsed.tbs_certificate.subject_public_key_info;
    if key.algorithm.oid != RSA_ENCRYPTION {
        return None;
    }
    // RFC 8017 §A.1.1: a sequence that begins with the modulus.
    let mut reader = SliceReader::new(key.subject_public_key.as_bytes()?).ok()?;
    let bits = reader.sequence(|inside| {
        let modulus = UintRef::decode(inside)?.as_bytes();
        let leading = modulus.first().map_or(0, |byte| byte.leading_zeros());
        while !inside.is_finished() {
            AnyRef::decode(inside)?;
        }
        Ok(8 * modulus.len() - usize::try_from(leading).unwrap_or(0))
    });
    bits.ok().filter(|bits| *bits < 2048).map(ShortRsaKey)
}

/// Whether a certificate is refused only for the time that it is.
pub(super) const fn is_about_dates(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// One line about an error of TLS.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's errors are an open list")]
pub(crate) fn certificate_error(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(cause) => describe(cause),
        error => error.to_string(),
    }
}

/// One line, where rustls has a dump.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's errors are an open list")]
pub(super) fn describe(error: &CertificateError) -> String {
    match error {
        CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id, ..
        }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            ..
        } => {
            let name = algorithm_name(signature_algorithm_id);
            format!("a signature by {name} cannot be verified")
        }
        CertificateError::Other(OtherError(error)) => error.to_string(),
        error => error.to_string(),
    }
}

/// The name of an algorithm, or its object identifier.
fn algorithm_name(identifier: &[u8]) -> String {
    match SliceReader::new(identifier).and_then(|mut reader| ObjectIdentifier::decode(&mut reader))
    {
        Ok(oid) => DB.by_oid(&oid).map_or_else(|| oid.to_string(), ToOwned::to_owned),
        Err(_) => "an unknown algorithm".to_owned(),
    }
}

fn validity(certificate: &[u8]) -> Option<Validity> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate.validity;
    let [begin, end] =
        [validity.not_before, validity.not_after].map(|time| time.to_unix_duration());
    Some(Validity::of_certificate(begin, end))
}

/// RFC 5280 §4.1.2.5 and §4.2.1.12: without an extended key usage, every usage is allowed.
fn verify_dates_and_usage(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate);
    let tbs = parsed.map_err(|_bad| CertificateError::BadEncoding)?.tbs_certificate;
    let at = Duration::from_secs(now.as_secs());
    let [not_before, not_after] =
        [tbs.validity.not_before, tbs.validity.not_after].map(|time| time.to_unix_duration());
    let time = |duration: Duration| UnixTime::since_unix_epoch(duration);
    if at < not_before {
        let not_before = time(not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if at > not_after {
        let not_after = time(not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let usage = tbs.get::<ExtendedKeyUsage>().map_err(|_bad| CertificateError::BadEncoding)?;
    if usage.is_some_and(|(_, usage)| !usage.0.contains(&ID_KP_SERVER_AUTH)) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}
