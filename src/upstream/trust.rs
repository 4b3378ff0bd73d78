//! The CA file, and TLS that trusts it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};

use super::bundle::{Bundle, BundleError};
use super::connector::TlsConnector;
use super::expiry::{Place, Subject, Validity};
use super::file::{is_out_of_descriptors, read_file};
use super::verifier::{Shown, Verifier};

/// The longest CA file, in bytes: some five times what a distribution trusts.
const MAX_CA_BYTES: usize = 1 << 20;
/// How many blocks of a CA file that cannot be used have a line each.
const MAX_BLOCKS_LOGGED: usize = 10;

/// A CA file that cannot be used.
#[derive(Debug)]
pub(crate) struct CaError {
    path: PathBuf,
    cause: CaFault,
}

#[derive(Debug)]
enum CaFault {
    Read(io::Error),
    Bundle(BundleError),
    Tls(rustls::Error),
}

impl fmt::Display for CaError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SA_CA_CERT_PATH {:?} cannot be used as a CA bundle: ", self.path)?;
        match &self.cause {
            CaFault::Read(error) => write!(out, "{error}"),
            CaFault::Bundle(error) => write!(out, "{error}"),
            CaFault::Tls(error) => write!(out, "{error}"),
        }
    }
}

impl CaError {
    /// Whether no file can be opened at all.
    pub(super) fn is_out_of_descriptors(&self) -> bool {
        matches!(&self.cause, CaFault::Read(error) if is_out_of_descriptors(error))
    }
}

/// The contents of the CA file.
pub(super) fn read_ca(path: &Path) -> Result<Vec<u8>, CaError> {
    let failed = |error| CaError { path: path.to_owned(), cause: CaFault::Read(error) };
    read_file(path, MAX_CA_BYTES).map_err(failed)
}

/// TLS that trusts the CA file `ca`, which was read from `path`, and the anchors of that. What of it
/// cannot be used is logged.
pub(super) fn trust(
    path: &Path,
    ca: &[u8],
    shown: &Shown,
) -> Result<(TlsConnector, Vec<(Subject, Validity)>), CaError> {
    let failed = |cause| CaError { path: path.to_owned(), cause };
    let bundle = Bundle::parse(ca).map_err(|error| failed(CaFault::Bundle(error)))?;
    log_bundle(path, &bundle);
    let provider = provider();
    let verifier = Verifier::new(&bundle, &provider, Arc::clone(shown));
    let tls = TlsConnector::new(verifier, provider).map_err(|error| failed(CaFault::Tls(error)))?;
    let anchors = bundle.certificates.iter().filter(|it| it.is_anchor);
    let anchors = anchors.map(|it| (Subject::Anchor(it.place), it.validity)).collect();
    Ok((tls, anchors))
}

/// The CAs of a PEM file that can be used; an error when there is no certificate.
pub(crate) fn anchors(file: &[u8]) -> Result<RootCertStore, String> {
    Ok(Bundle::parse(file).map_err(|error| error.to_string())?.anchors())
}

fn log_bundle(path: &Path, bundle: &Bundle) {
    let path = path.display();
    for refused in bundle.refused.iter().take(MAX_BLOCKS_LOGGED) {
        let Place { block, line } = refused.place;
        warn!(path:%, block, line, error:% = refused.cause; "a certificate of the CA file is left out");
    }
    let others = bundle.refused.len().saturating_sub(MAX_BLOCKS_LOGGED);
    if others > 0 {
        warn!(path:%, others; "more certificates of the CA file are left out");
    }
}

/// The cryptography of TLS. Of key exchanges, those which combine a classic one with ML-KEM come
/// last: a server that wants one asks for it, at the cost of one round trip.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![
        kx_group::X25519,
        kx_group::SECP256R1,
        kx_group::SECP384R1,
        kx_group::X25519MLKEM768,
        kx_group::SECP256R1MLKEM768,
    ];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}
