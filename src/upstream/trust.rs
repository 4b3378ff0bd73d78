//! The gateway's own token, and the CAs that it trusts for upstream.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use ureq::tls::Certificate;

use super::failure::Failure;

/// The gateway's own token, as the value of `Authorization`. Its `Debug` does not show it.
pub(super) struct Token(pub(super) HeaderValue);

impl Token {
    /// An error when the file cannot be read or contains no token.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause| Failure::Token { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let token = text.trim();
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| failed(io::Error::other("it contains no token")))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}

/// A CA file that cannot be used.
#[derive(Debug)]
pub(crate) struct CaError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for CaError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause } = self;
        write!(out, "SA_CA_CERT_PATH {path:?} cannot be used as a CA bundle: {cause}")
    }
}

/// The bytes of the CA file.
pub(super) fn read_ca(path: &Path) -> Result<Vec<u8>, CaError> {
    std::fs::read(path).map_err(|cause| CaError { path: path.to_owned(), cause })
}

/// The certificates of a bundle in PEM: RFC 7468 §5. At least one, and each a valid anchor.
///
/// rustls-pemfile is archived (RUSTSEC-2025-0134). It is a thin wrapper around rustls-pki-types,
/// which is maintained and does the parsing; only this function would change.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<Certificate<'static>>, CaError> {
    let failed = |cause| CaError { path: path.to_owned(), cause };
    let mut certificates = Vec::new();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut &*pem) {
        let certificate = certificate.map_err(failed)?;
        certificates.push(Certificate::from_der(&certificate).to_owned());
        roots.add(certificate).map_err(|error| failed(io::Error::other(error)))?;
    }
    if certificates.is_empty() {
        return Err(failed(io::Error::other("it contains no PEM certificate")));
    }
    Ok(certificates)
}

/// Why rustls rejected upstream's certificate, if that is what failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "ureq's errors are an open list")]
pub(super) fn certificate_error(error: &ureq::Error) -> Option<&rustls::CertificateError> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref()?,
        _ => return None,
    };
    if let rustls::Error::InvalidCertificate(cause) = error { Some(cause) } else { None }
}
