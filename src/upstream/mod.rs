//! The API server: two GETs with the gateway's own token, limited in time and size, over TLS that
//! trusts the cluster's CA and nothing else.
//!
//! The token file and the CA file may change while the program runs, so both are read again for
//! each fetch: a few kilobytes per `CACHE_TTL_SECONDS` cost less than watching them. Every option
//! of ureq that matters is set here; its defaults are not relied on. What upstream sends besides
//! the document, such as headers and error texts, never leaves this module.
//!
//! Each round has a connection of its own: behind one address there may be several API servers, and
//! while they are restarted one after the other they publish different key sets. A connection that is
//! kept sees one of them.
//!
//! Invariant: one thread, the refresher, uses it, so there is no lock.

mod bundle;
mod connector;
mod expiry;
mod failure;
mod file;
mod resolver;
mod token;
mod trust;
mod verifier;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use log::{info, warn};
use ureq::Agent;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

pub(crate) use bundle::Certificate;
pub(crate) use connector::{TlsConnector, client_config};
pub(crate) use expiry::{Place, Subject, Validity};
use expiry::{Reports, State};
pub(crate) use failure::Failure;
use file::is_out_of_descriptors;
use resolver::{LookupError, Way, WayResolver};
pub(crate) use token::Token;
pub(crate) use trust::CaError;
pub(crate) use trust::{anchors, provider};
use trust::{read_ca, trust};
use verifier::Shown;
pub(crate) use verifier::certificate_error;

use crate::documents::{Kind, MAX_UPSTREAM_BYTES};
use crate::http::cache_directive;
use crate::locks::lock;
use crate::notices::Notices;

const USER_AGENT: &str = concat!("kube-issuer-gateway/", env!("CARGO_PKG_VERSION"));
/// The longest response head, in bytes; kube-apiserver's has some 500.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Where the API server is, and which token and CA to use.
pub(crate) struct Settings {
    /// Scheme, authority and path, without a slash at its end.
    pub(crate) base: String,
    /// Where to reach it before DNS is asked for the name in `base`.
    pub(crate) address: Option<SocketAddr>,
    /// The time limit of one fetch in total, including the retries.
    pub(crate) timeout: Duration,
    pub(crate) token_path: PathBuf,
    pub(crate) ca_path: PathBuf,
}

/// A document as upstream sent it.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    /// `max-age` of `Cache-Control`, if it has one.
    pub(crate) max_age: Option<Duration>,
}

/// The API server, and how it is reached.
pub(crate) struct Upstream {
    settings: Settings,
    /// The contents of the CA file that `tls` trusts.
    ca: Vec<u8>,
    tls: TlsConnector,
    /// With the connection of this round.
    agent: Agent,
    /// Those of the bundle, by what they are.
    anchors: Vec<(Subject, Validity)>,
    shown: Shown,
    reports: Reports,
    unusable_ca: Notices<()>,
    /// As it was last read; `None`: it could not be.
    token: Option<Token>,
    way: Arc<Way>,
    /// [`Way::address`] when it was last logged.
    logged_way: Option<Option<SocketAddr>>,
}

impl Upstream {
    /// Reads the CA file; an error when it cannot be used.
    pub(crate) fn new(settings: Settings) -> Result<Self, CaError> {
        let ca = read_ca(&settings.ca_path)?;
        let way = Arc::new(Way::new(settings.address));
        let shown = Shown::default();
        let (tls, anchors) = trust(&settings.ca_path, &ca, &shown)?;
        let agent = agent(&tls, &way);
        let token = Token::read(&settings.token_path).ok();
        let mut upstream = Self {
            settings,
            ca,
            tls,
            agent,
            anchors,
            shown,
            reports: Reports::default(),
            unusable_ca: Notices::new(),
            token,
            way,
            logged_way: None,
        };
        upstream.log_way();
        upstream.report_expiry();
        Ok(upstream)
    }

    /// From now on a new connection is used.
    pub(crate) fn begin_round(&mut self) {
        self.way.ask_dns(false);
        self.agent = agent(&self.tls, &self.way);
    }

    /// Fetches one document, as upstream sent it, within `UPSTREAM_TIMEOUT_SECONDS` in total. A 401
    /// is tried once more, with the token read again.
    pub(crate) fn fetch(&mut self, kind: Kind) -> Result<Fetched, Failure> {
        self.reload_ca_if_changed();
        let deadline = Instant::now() + self.settings.timeout;
        let outcome = match self.fetch_by_either_way(kind, deadline) {
            // The kubelet may have replaced the token since it was read.
            Err(Failure::Unauthorized) => self.fetch_once(kind, deadline),
            outcome => outcome,
        };
        self.report_expiry();
        outcome
    }

    /// The gateway's own token, as it was sent last; `None`: it could not be read.
    pub(crate) const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// From when on the gateway's own token should have been renewed, if it says so.
    pub(crate) fn token_renewal_due(&self) -> Option<SystemTime> {
        self.token.as_ref().and_then(Token::validity).map(|validity| validity.renewal_due)
    }

    /// The validity of each CA of the CA file, of the certificate that the API server showed last, and of
    /// the gateway's own token, where they are known.
    pub(crate) fn validities(&self) -> Vec<(Subject, Validity)> {
        let server = lock(&self.shown).map(|validity| (Subject::Server, validity));
        let validity = self.token.as_ref().and_then(Token::validity);
        let token = validity.map(|validity| (Subject::Token, validity));
        self.anchors.iter().copied().chain(server).chain(token).collect()
    }

    /// Logs what has expired, or will soon: each at most once a day.
    fn report_expiry(&mut self) {
        let now = SystemTime::now();
        for (subject, validity) in self.validities() {
            if let Some(state) = self.reports.due(subject, validity, now) {
                self.log_expiry(subject, validity, state);
            }
        }
    }

    fn log_expiry(&self, subject: Subject, validity: Validity, state: State) {
        let expires = humantime::format_rfc3339_seconds(validity.not_after);
        let Settings { base, ca_path, token_path, .. } = &self.settings;
        match (subject, state) {
            (Subject::Server, _) => {
                let hint = "renew the API server's certificate";
                warn!(url:% = base, expires:%, hint; "the API server's certificate expires soon");
            }
            (Subject::Anchor(Place { block, line }), State::EndsSoon) => {
                let path = ca_path.display();
                warn!(path:%, block, line, expires:%; "a certificate of the CA file expires soon");
            }
            (Subject::Anchor(Place { block, line }), State::Over) => {
                let path = ca_path.display();
                warn!(path:%, block, line, expires:%; "a certificate of the CA file has expired");
            }
            (Subject::Token, _) => {
                let (path, hint) = (token_path.display(), "check whether SA_TOKEN_PATH is renewed");
                warn!(path:%, expires:%, hint; "the gateway's own token has not been renewed");
            }
        }
    }

    /// By the address of `KUBERNETES_SERVICE_HOST`; by DNS if that is not known, or if in this round no
    /// connection to it could be made.
    fn fetch_by_either_way(&mut self, kind: Kind, deadline: Instant) -> Result<Fetched, Failure> {
        let outcome = self.fetch_once(kind, deadline);
        let is_over = Instant::now() >= deadline;
        if self.way.address().is_none()
            || !outcome.as_ref().is_err_and(Failure::is_unreached)
            || is_over
        {
            if outcome.is_ok() {
                self.log_way();
            }
            return outcome;
        }
        self.way.ask_dns(true);
        let other = self.fetch_once(kind, deadline);
        // DNS may lead anywhere: only an answer of a trusted server says more than the first failure.
        if other.as_ref().err().is_none_or(Failure::is_answer) {
            self.log_way();
            return other;
        }
        self.way.ask_dns(false);
        outcome
    }

    /// Logs by which way upstream is reached, if that is not what was logged last.
    fn log_way(&mut self) {
        let address = self.way.address();
        if self.logged_way.replace(address) == Some(address) {
            return;
        }
        let url = &self.settings.base;
        match address {
            Some(address) => {
                info!(url:%, address:%; "using the address of KUBERNETES_SERVICE_HOST");
            }
            None => info!(url:%; "using the name in the URL"),
        }
    }

    /// If the CA file has changed, uses it from now on, and closes the connections that were opened
    /// with the old one. A file that cannot be used is logged, and the old one stays in use.
    fn reload_ca_if_changed(&mut self) {
        let path = &self.settings.ca_path;
        let changed = read_ca(path).and_then(|ca| {
            if ca == self.ca {
                return Ok(None);
            }
            Ok(Some((trust(path, &ca, &self.shown)?, ca)))
        });
        match changed {
            Ok(None) => {
                if self.unusable_ca.end(&()) {
                    info!(path:% = path.display(); "CA file can be used again");
                }
            }
            Ok(Some(((tls, anchors), ca))) => {
                info!(path:% = path.display(); "CA file changed and is in use");
                self.unusable_ca.end(&());
                (self.tls, self.anchors, self.ca) = (tls, anchors, ca);
                self.begin_round();
            }
            // The fetch that follows fails for the same reason, and says so.
            Err(error) if error.is_out_of_descriptors() => {}
            Err(error) => {
                if self.unusable_ca.is_due((), &error.to_string(), Instant::now()) {
                    warn!(error:%; "CA file cannot be used, the last valid one stays in use");
                }
            }
        }
    }

    fn fetch_once(&mut self, kind: Kind, deadline: Instant) -> Result<Fetched, Failure> {
        self.token = None;
        let token = self.token.insert(Token::read(&self.settings.token_path)?).clone();
        match self.get(kind, &token, deadline) {
            // Upstream may have closed the keep-alive connection, which is noticed only when it is
            // used. A GET may be sent again: RFC 9110 §9.2.2.
            Err(ureq::Error::Io(error)) if is_dead_connection(&error) => {
                self.get(kind, &token, deadline)
            }
            outcome => outcome,
        }
        .map_err(|error| self.failure(error))?
    }

    /// One request and its response. The outer error is one of the transport; the inner one is an
    /// unexpected status.
    fn get(
        &self,
        kind: Kind,
        token: &Token,
        deadline: Instant,
    ) -> Result<Result<Fetched, Failure>, ureq::Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut response = self
            .agent
            .get(format!("{}{}", self.settings.base, kind.path()))
            .config()
            .timeout_global(Some(left))
            // TCP and TLS. Where DNS may be asked as well, there must be time left for it.
            .timeout_connect(self.way.address().map(|_| left / 2))
            .build()
            .header(http::header::ACCEPT, kind.media_type())
            .header(http::header::AUTHORIZATION, &token.0)
            .call()?;
        Ok(match response.status() {
            StatusCode::OK => {
                let max_age = max_age(response.headers());
                let body = response.body_mut().with_config().limit(MAX_UPSTREAM_BYTES);
                Ok(Fetched { bytes: body.read_to_vec()?, max_age })
            }
            StatusCode::UNAUTHORIZED => Err(Failure::Unauthorized),
            StatusCode::FORBIDDEN => Err(Failure::Forbidden),
            StatusCode::NOT_FOUND => Err(Failure::NotFound),
            status => Err(Failure::Status(status)),
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "ureq's errors are an open list")]
    fn failure(&self, error: ureq::Error) -> Failure {
        let base = match self.way.address() {
            Some(address) => format!("{} at {address}", self.settings.base),
            None => self.settings.base.clone(),
        };
        match error {
            ureq::Error::Timeout(during) => {
                Failure::Timeout { base, bound: self.settings.timeout, during }
            }
            ureq::Error::BodyExceedsLimit(_) => Failure::TooLarge,
            ureq::Error::Io(cause) if is_out_of_descriptors(&cause) => Failure::NoDescriptor(cause),
            ureq::Error::Other(cause) => match cause.downcast::<LookupError>() {
                Ok(cause) => Failure::NameNotResolved { base, cause: *cause },
                Err(cause) => Failure::Unreachable { base, cause: cause.to_string() },
            },
            error @ (ureq::Error::Protocol(_)
            | ureq::Error::Http(_)
            | ureq::Error::LargeResponseHeader(..)) => {
                Failure::Protocol { base, cause: error.to_string() }
            }
            error => match tls_error(&error) {
                Some(error) => self.tls_failure(base, error),
                None => Failure::Unreachable { base, cause: error.to_string() },
            },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls's errors are an open list")]
    fn tls_failure(&self, base: String, error: &rustls::Error) -> Failure {
        match error {
            rustls::Error::InvalidCertificate(cause) => {
                let ca_path = self.settings.ca_path.clone();
                let is_date = verifier::is_about_dates(cause);
                let cause = verifier::describe(cause);
                if is_date {
                    Failure::CertificateDate { base, cause }
                } else {
                    Failure::UntrustedCertificate { base, ca_path, cause }
                }
            }
            rustls::Error::InvalidMessage(_) => {
                Failure::Protocol { base, cause: format!("it is not TLS ({error})") }
            }
            error => Failure::Tls { base, cause: error.to_string() },
        }
    }
}

/// An agent without a connection, with every option set whose default in ureq is unsuitable, or could
/// become so.
fn agent(tls: &TlsConnector, way: &Arc<Way>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        // Longer than a round lasts.
        .max_idle_age(Duration::from_secs(90))
        .build();
    let connector = ().chain(TcpConnector::default()).chain(tls.clone());
    Agent::with_parts(config, connector, WayResolver(Arc::clone(way)))
}

/// The `max-age` of a response.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(http::header::CACHE_CONTROL).into_iter();
    cache_directive(values.filter_map(|value| value.to_str().ok()), "max-age")
}

/// Whether a request may have failed only because upstream had already closed the connection.
fn is_dead_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// What rustls says, if that is what failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "ureq's errors are an open list")]
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
