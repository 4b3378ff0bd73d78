//! Certificates, their keys, and TLS servers that show them.

use std::sync::Arc;

/// For what the functions here leave to the caller: validity, usages, extensions.
pub use rcgen;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate and its key.
pub struct Pair {
    /// The certificate, a block of PEM.
    pub pem: String,
    /// The same certificate.
    pub der: CertificateDer<'static>,
    /// What it was made from.
    pub params: CertificateParams,
    /// Its private key.
    pub key: KeyPair,
}

/// For a server of this host, a name or an address; `name` is its common name.
#[must_use]
pub fn named(name: &str, host: &str) -> CertificateParams {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// For a CA with this common name.
#[must_use]
pub fn named_ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Signed by its own new key, over P-256.
#[must_use]
pub fn self_signed(params: CertificateParams) -> Pair {
    self_signed_with(params, &PKCS_ECDSA_P256_SHA256)
}

/// Signed by its own new key, of this algorithm.
#[must_use]
pub fn self_signed_with(params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Pair { pem: certificate.pem(), der: certificate.der().clone(), params, key }
}

/// Has a new key over P-256, and is signed by `issuer`.
#[must_use]
pub fn signed_by(params: CertificateParams, issuer: &Pair) -> Pair {
    signed_with(params, issuer, &PKCS_ECDSA_P256_SHA256)
}

/// Has a new key of this algorithm, and is signed by `issuer`.
#[must_use]
pub fn signed_with(
    params: CertificateParams,
    issuer: &Pair,
    algorithm: &'static SignatureAlgorithm,
) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let issuer = Issuer::from_params(&issuer.params, &issuer.key);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Pair { pem: certificate.pem(), der: certificate.der().clone(), params, key }
}

/// Shows a certificate whatever its key is.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server that shows `chain`, whether `key` is that of its first certificate or not, and that knows these key exchange
/// groups; without any, those of rustls.
#[must_use]
pub fn server(
    chain: &[&Pair],
    key: &KeyPair,
    groups: &[&'static dyn SupportedKxGroup],
) -> ServerConfig {
    let mut provider = aws_lc_rs::default_provider();
    if !groups.is_empty() {
        provider.kx_groups = groups.to_vec();
    }
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(key).unwrap();
    let chain = chain.iter().map(|pair| pair.der.clone()).collect();
    let shows = Shows(Arc::new(CertifiedKey::new(chain, key)));
    ServerConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shows))
}
