//! The API server: two bounded GETs with the gateway's own token, over TLS that trusts the
//! cluster's CA and nothing else.
//!
//! The token and the CA are files that the kubelet swaps while we run, so both are read anew for
//! each fetch: a few kilobytes once in `CACHE_TTL_SECONDS` cost less than to watch them. Defaults of
//! ureq are set here one by one and never relied on. What upstream says besides the document (its
//! headers, its error texts) goes no further than this file.
//!
//! Used by one thread, the refresher, and so without any lock.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, Uri};
use log::{info, warn};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Timeout};

use crate::config::UpstreamConfig;
use crate::documents::{Kind, MAX_UPSTREAM_BYTES, Refused};
use crate::reason::Reason;

const USER_AGENT: &str = concat!("kube-issuer-gateway/", env!("CARGO_PKG_VERSION"));
/// Of an answer of upstream; kube-apiserver sends some 500 bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Look-ups that may hang at one time: the C library gives none up before its own time is over.
const MAX_LOOKUPS: usize = 4;

/// The API server, and how it is reached.
pub(crate) struct Upstream {
    config: UpstreamConfig,
    /// The contents of the CA file that `agent` trusts.
    ca: Vec<u8>,
    agent: Agent,
}

impl Upstream {
    /// Reads the CA file, which must hold a certificate.
    pub(crate) fn new(config: UpstreamConfig) -> Result<Self, CaError> {
        let ca = CaError::read(&config.ca_path)?;
        let agent = agent(&CaError::certificates(&config.ca_path, &ca)?);
        Ok(Self { config, ca, agent })
    }

    /// Fetches one document, as upstream sent it, within `UPSTREAM_TIMEOUT_SECONDS` in all.
    pub(crate) fn fetch(&mut self, kind: Kind) -> Result<Vec<u8>, Failure> {
        self.follow_ca();
        let deadline = Instant::now() + self.config.timeout;
        match self.exchange(kind, deadline) {
            // The token may have been replaced since it was read.
            Err(Failure::Unauthorized) => self.exchange(kind, deadline),
            outcome => outcome,
        }
    }

    /// Takes up a CA file that changed, and with it drops the connections that the old one let in.
    ///
    /// One that cannot be used is told and changes nothing.
    fn follow_ca(&mut self) {
        let path = &self.config.ca_path;
        let changed = CaError::read(path).and_then(|ca| {
            if ca == self.ca {
                return Ok(None);
            }
            Ok(Some((agent(&CaError::certificates(path, &ca)?), ca)))
        });
        match changed {
            Ok(None) => {}
            Ok(Some((agent, ca))) => {
                info!(path:% = path.display(); "CA file changed and is in use");
                (self.agent, self.ca) = (agent, ca);
            }
            Err(error) => warn!(error:%; "CA file cannot be used, the last good one stays in use"),
        }
    }

    fn exchange(&self, kind: Kind, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let token = Token::read(&self.config.token_path)?;
        match self.get(kind, &token, deadline) {
            // A kept connection that upstream closed just now shows only when it is used. A GET
            // may be sent again: RFC 9110 §9.2.2.
            Err(ureq::Error::Io(error)) if is_dead_connection(&error) => {
                self.get(kind, &token, deadline)
            }
            outcome => outcome,
        }
        .map_err(|error| self.failure(error))?
    }

    /// One request and its answer; the inner result is what upstream's status says.
    fn get(
        &self,
        kind: Kind,
        token: &Token,
        deadline: Instant,
    ) -> Result<Result<Vec<u8>, Failure>, ureq::Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut response = self
            .agent
            .get(format!("{}{}", self.config.base, kind.path()))
            .config()
            .timeout_global(Some(left))
            .build()
            .header(http::header::ACCEPT, kind.media_type())
            .header(http::header::AUTHORIZATION, &token.0)
            .call()?;
        Ok(match response.status() {
            StatusCode::OK => {
                Ok(response.body_mut().with_config().limit(MAX_UPSTREAM_BYTES).read_to_vec()?)
            }
            StatusCode::UNAUTHORIZED => Err(Failure::Unauthorized),
            StatusCode::FORBIDDEN => Err(Failure::Forbidden),
            StatusCode::NOT_FOUND => Err(Failure::NotFound),
            status => Err(Failure::Status(status)),
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "ureq's errors are an open list")]
    fn failure(&self, error: ureq::Error) -> Failure {
        let base = self.config.base.clone();
        match error {
            ureq::Error::Timeout(during) => {
                Failure::Timeout { base, bound: self.config.timeout, during }
            }
            ureq::Error::BodyExceedsLimit(_) => Failure::TooLarge,
            ureq::Error::Other(cause) => match cause.downcast::<LookupError>() {
                Ok(cause) => Failure::NameNotResolved { base, cause: *cause },
                Err(cause) => Failure::Unreachable { base, cause: cause.to_string() },
            },
            error => match certificate_error(&error) {
                Some(cause) => Failure::UntrustedCertificate {
                    base,
                    ca_path: self.config.ca_path.clone(),
                    cause: cause.to_string(),
                },
                None => Failure::Unreachable { base, cause: error.to_string() },
            },
        }
    }
}

/// Every setting of ureq that a default could change for the worse.
fn agent(certificates: &[Certificate<'static>]) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(certificates))
        .disable_verification(false)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        // kube-apiserver keeps an idle connection for longer than any CACHE_TTL_SECONDS in use.
        .max_idle_age(Duration::from_secs(90))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), BoundedResolver::default())
}

/// Reason a fetch failed: what was tried and what came of it.
#[derive(Debug)]
pub(crate) enum Failure {
    Token { path: PathBuf, cause: io::Error },
    Unreachable { base: String, cause: String },
    NameNotResolved { base: String, cause: LookupError },
    Timeout { base: String, bound: Duration, during: Timeout },
    UntrustedCertificate { base: String, ca_path: PathBuf, cause: String },
    Unauthorized,
    Forbidden,
    NotFound,
    Status(StatusCode),
    TooLarge,
    Document(Refused),
}

impl Failure {
    /// What a client may be told of it.
    pub(crate) fn why(&self) -> Reason {
        match self {
            Self::Token { .. } | Self::Unauthorized => Reason::Unauthorized,
            Self::Unreachable { .. } | Self::NameNotResolved { .. } => Reason::Unreachable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::UntrustedCertificate { .. } => Reason::UntrustedCertificate,
            Self::Forbidden => Reason::Forbidden,
            Self::NotFound => Reason::NotFound,
            // An API server that is starting, stopping or overloaded is as good as away.
            Self::Status(status) if status.is_server_error() || status.as_u16() == 429 => {
                Reason::Unreachable
            }
            Self::Status(_) | Self::TooLarge | Self::Document(_) => Reason::BadDocument,
        }
    }

    /// Whether the other document would fail in the same way, so that it need not be asked for.
    pub(crate) fn concerns_both(&self) -> bool {
        matches!(
            self.why(),
            Reason::Unauthorized
                | Reason::Unreachable
                | Reason::Timeout
                | Reason::UntrustedCertificate
        )
    }

    /// What an operator can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Token { .. } => {
                "make SA_TOKEN_PATH a token of the gateway's ServiceAccount \
                 (automountServiceAccountToken)"
            }
            Self::Unreachable { .. } => {
                "see whether the API server runs, whether UPSTREAM_HOST is right and whether a \
                 NetworkPolicy is in the way"
            }
            Self::NameNotResolved { .. } => {
                "see whether the cluster's DNS answers and the name in UPSTREAM_HOST is right"
            }
            Self::Timeout { .. } => {
                "see whether the API server is overloaded or a NetworkPolicy drops packets, or \
                 raise UPSTREAM_TIMEOUT_SECONDS"
            }
            Self::UntrustedCertificate { .. } => {
                "make SA_CA_CERT_PATH the CA of the API server's certificate, and UPSTREAM_HOST \
                 one of its names"
            }
            Self::Unauthorized => {
                "the token is expired, revoked or of another cluster: see whether SA_TOKEN_PATH \
                 is renewed"
            }
            Self::Forbidden => {
                "bind the ClusterRole system:service-account-issuer-discovery to the gateway's \
                 ServiceAccount"
            }
            Self::NotFound => {
                "give kube-apiserver a --service-account-issuer that is an https URL: without one \
                 it does not serve these paths"
            }
            Self::Status(_) => "see the API server's log; UPSTREAM_HOST may lead to something else",
            Self::TooLarge | Self::Document(_) => {
                "see what UPSTREAM_HOST leads to: kubectl get --raw shows the document"
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { path, cause } => {
                write!(out, "cannot read the token {}: {cause}", path.display())
            }
            Self::Unreachable { base, cause } => write!(out, "cannot reach {base}: {cause}"),
            Self::NameNotResolved { base, cause } => {
                write!(out, "cannot resolve the name in {base}: {cause}")
            }
            Self::Timeout { base, bound, during } => write!(
                out,
                "no whole answer from {base} within UPSTREAM_TIMEOUT_SECONDS, {bound:?} ({during})"
            ),
            Self::UntrustedCertificate { base, ca_path, cause } => write!(
                out,
                "the certificate of {base} is not trusted by {}: {cause}",
                ca_path.display()
            ),
            Self::Unauthorized => out.write_str("upstream refused the token (401)"),
            Self::Forbidden => {
                out.write_str("upstream took the token but does not allow the path (403)")
            }
            Self::NotFound => out.write_str("upstream does not have the path (404)"),
            Self::Status(status) => write!(out, "upstream answered {}", status.as_u16()),
            Self::TooLarge => {
                write!(out, "upstream's answer is larger than {MAX_UPSTREAM_BYTES} bytes")
            }
            Self::Document(refused) => write!(out, "the document is refused: {refused}"),
        }
    }
}

/// The gateway's own token, as the value of `Authorization`. Its `Debug` shows nothing.
struct Token(HeaderValue);

impl Token {
    fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause| Failure::Token { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let token = text.trim();
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| failed(io::Error::other("it holds no token")))?;
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

impl CaError {
    fn read(path: &Path) -> Result<Vec<u8>, Self> {
        std::fs::read(path).map_err(|cause| Self { path: path.to_owned(), cause })
    }

    /// The certificates of a bundle in PEM: RFC 7468 §5. One at least, and each a certificate.
    ///
    /// rustls-pemfile is archived (RUSTSEC-2025-0134): a thin wrapper of rustls-pki-types, which
    /// is maintained and does the parsing. This is the one place that would change.
    fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<Certificate<'static>>, Self> {
        let failed = |cause| Self { path: path.to_owned(), cause };
        let mut certificates = Vec::new();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &*pem) {
            let certificate = certificate.map_err(failed)?;
            certificates.push(Certificate::from_der(&certificate).to_owned());
            roots.add(certificate).map_err(|error| failed(io::Error::other(error)))?;
        }
        if certificates.is_empty() {
            return Err(failed(io::Error::other("it holds no certificate in PEM")));
        }
        Ok(certificates)
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause } = self;
        write!(out, "SA_CA_CERT_PATH {path:?} cannot be used as a bundle of CAs: {cause}")
    }
}

/// Whether a request may have failed only because the connection had been closed meanwhile.
fn is_dead_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// The reason why rustls did not believe upstream's certificate, when that is what failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "ureq's errors are an open list")]
fn certificate_error(error: &ureq::Error) -> Option<&rustls::CertificateError> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref()?,
        _ => return None,
    };
    if let rustls::Error::InvalidCertificate(cause) = error { Some(cause) } else { None }
}

/// Resolves names within a bound, each in a thread of its own, of which few can hang at one time.
///
/// ureq's own resolver does the same without the bound, and panics when no thread can be started.
#[derive(Debug, Default)]
struct BoundedResolver {
    under_way: Arc<AtomicUsize>,
}

/// Reason a name was not resolved.
#[derive(Debug)]
pub(crate) enum LookupError {
    /// So many look-ups hang already.
    TooMany,
    Thread(io::Error),
    Lookup(io::Error),
    NoAddress,
}

impl fmt::Display for LookupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(out, "{MAX_LOOKUPS} look-ups hang already"),
            Self::Thread(error) => write!(out, "cannot start a thread for the look-up: {error}"),
            Self::Lookup(error) => write!(out, "{error}"),
            Self::NoAddress => out.write_str("the name has no address"),
        }
    }
}

impl std::error::Error for LookupError {}

impl From<LookupError> for ureq::Error {
    fn from(error: LookupError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl Resolver for BoundedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let address = uri
            .scheme()
            .zip(uri.authority())
            .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority))
            .ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let found = match address.parse::<SocketAddr>() {
            Ok(literal) => vec![literal],
            Err(_) => self.look_up(address, &timeout)?,
        };
        let mut addresses = self.empty();
        // As many as ureq's array takes.
        found.into_iter().take(16).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(LookupError::NoAddress.into()) } else { Ok(addresses) }
    }
}

impl BoundedResolver {
    fn look_up(
        &self,
        address: String,
        timeout: &NextTimeout,
    ) -> Result<Vec<SocketAddr>, ureq::Error> {
        let permit = Permit(Arc::clone(&self.under_way));
        if permit.0.fetch_add(1, Ordering::Relaxed) >= MAX_LOOKUPS {
            return Err(LookupError::TooMany.into());
        }
        let (sender, found) = mpsc::sync_channel(1);
        let look_up = move || {
            let _permit = permit;
            // Nobody listens any more when the time is over.
            let _ = sender.send(address.to_socket_addrs().map(Iterator::collect));
        };
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(look_up)
            .map_err(LookupError::Thread)?;
        match found.recv_timeout(*timeout.after) {
            Ok(found) => Ok(found.map_err(LookupError::Lookup)?),
            Err(_) => Err(ureq::Error::Timeout(timeout.reason)),
        }
    }
}

/// One look-up that counts as under way until this is dropped.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
