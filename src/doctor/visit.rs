//! The way of an anonymous relying party: name, TCP, TLS, and requests, each limited in time and size.
//!
//! It follows no redirect, sends no token, and asks for no compression. The server's certificate is verified as
//! a relying party would: by public roots, or by the CA of `--ca`.

use std::fmt;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http::Uri;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use ureq::Agent;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout, TcpConnector};

use super::arguments::Resolve;
use crate::http::cache_directive;
use crate::locks::lock;
use crate::upstream::{TlsConnector, certificate_error, client_config, provider};
use crate::url::without_brackets;

/// For a look-up, which getaddrinfo(3) itself does not limit.
const LOOKUP: Duration = Duration::from_secs(10);
/// For a connection by TCP or TLS, and for an answer in total: longer than all relying parties measured wait
/// but those that wait without end.
const CONNECT: Duration = Duration::from_secs(7);
const ANSWER: Duration = Duration::from_secs(15);
/// The longest body that is read: the largest key set that a relying party takes has half a megabyte.
const MAX_BODY: u64 = 1 << 20;
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
const USER_AGENT: &str = concat!("kube-issuer-gateway-doctor/", env!("CARGO_PKG_VERSION"));

/// The server that is visited.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_https: bool,
    /// As far as is known.
    pub(crate) has_tls_1_2: bool,
    addresses: Vec<SocketAddr>,
    trust: Arc<Trust>,
}

/// Which servers are trusted, and the certificates that were shown.
#[derive(Debug)]
pub(crate) struct Trust {
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Vec<CertificateDer<'static>>>,
}

/// An answer as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The length of the body, which is taken out when it has been read.
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
    pub(crate) has_tls_1_2: bool,
}

impl Answer {
    /// The seconds of a directive of `Cache-Control`.
    pub(crate) fn cache_directive(&self, directive: &str) -> Option<Duration> {
        let fields = self.headers.iter();
        let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("Cache-Control"));
        cache_directive(fields.map(|(_, value)| value.as_str()), directive)
    }

    /// The value of the first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }
}

impl Trust {
    /// An error when `roots` is empty.
    pub(crate) fn new(roots: RootCertStore) -> Result<Self, String> {
        let provider = provider();
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { verifier, provider, shown: Mutex::default() })
    }

    fn config(
        self: &Arc<Self>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Arc<ClientConfig>, Error> {
        let verifier = Arc::new(Recorder(Arc::clone(self)));
        // rustls offers the suites of other versions too, and servers choose certificates by them.
        let mut provider = CryptoProvider::clone(&self.provider);
        provider.cipher_suites.retain(|suite| versions.contains(&suite.version()));
        client_config(verifier, Arc::new(provider), versions)
    }
}

/// Verifies as webpki does, and remembers what was shown.
#[derive(Debug)]
struct Recorder(Arc<Trust>);

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = [end_entity].into_iter().chain(intermediates);
        *lock(&self.0.shown) = shown.map(|it| it.clone().into_owned()).collect();
        let verifier = &self.0.verifier;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.verifier.supported_verify_schemes()
    }
}

/// Why a name has no address.
pub(crate) enum NameError {
    Lookup(io::Error),
    NoAnswer,
}

impl fmt::Display for NameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => write!(out, "{error}"),
            Self::NoAnswer => write!(out, "no answer within {} s", LOOKUP.as_secs()),
        }
    }
}

/// The addresses of a name: those of `--resolve`, or of DNS.
pub(crate) fn resolve(
    host: &str,
    port: u16,
    resolves: &[Resolve],
) -> Result<Vec<SocketAddr>, NameError> {
    if let Some(given) = resolves.iter().find(|it| it.is_of(host, port)) {
        return Ok(given.addresses.iter().map(|it| SocketAddr::new(*it, port)).collect());
    }
    let (sender, found) = mpsc::channel();
    let name = (without_brackets(host).to_owned(), port);
    let look_up = move || {
        // Nobody waits any more when it took too long.
        let _ = sender.send(name.to_socket_addrs().map(Iterator::collect));
    };
    thread::Builder::new().spawn(look_up).map_err(NameError::Lookup)?;
    let found: io::Result<Vec<_>> =
        found.recv_timeout(LOOKUP).map_err(|_late| NameError::NoAnswer)?;
    let addresses = found.map_err(NameError::Lookup)?;
    Ok(addresses.into_iter().take(MAX_ADDRESSES).collect())
}

impl Server {
    pub(crate) const fn new(
        host: String,
        port: u16,
        is_https: bool,
        addresses: Vec<SocketAddr>,
        trust: Arc<Trust>,
    ) -> Self {
        Self { host, port, is_https, has_tls_1_2: true, addresses, trust }
    }

    /// Connects to all addresses at the same time, and says of each what came of it. Those that cannot be
    /// reached are not asked any more.
    pub(crate) fn connect(&mut self) -> Vec<(SocketAddr, io::Result<()>)> {
        let connect = |address: SocketAddr| {
            let connected = TcpStream::connect_timeout(&address, CONNECT);
            (address, connected.map(drop))
        };
        let threads: Vec<_> = self
            .addresses
            .iter()
            .copied()
            .map(|address| (address, thread::Builder::new().spawn(move || connect(address))))
            .collect();
        let outcomes: Vec<_> = threads
            .into_iter()
            .map(|(address, thread)| {
                let ended = thread.map(|thread| thread.join());
                match ended {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_panic)) => (address, Err(io::Error::other("it was not tried"))),
                    Err(error) => (address, Err(error)),
                }
            })
            .collect();
        let reached = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
        self.addresses = reached.map(|(address, _)| *address).collect();
        outcomes
    }

    /// The addresses that can be reached.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handshake with this version of TLS alone.
    pub(crate) fn handshake(
        &self,
        address: SocketAddr,
        version: &'static SupportedProtocolVersion,
    ) -> Handshake {
        lock(&self.trust.shown).clear();
        let outcome = self.shake_hands(address, version);
        Handshake { outcome, shown: mem::take(&mut *lock(&self.trust.shown)) }
    }

    fn shake_hands(
        &self,
        address: SocketAddr,
        version: &'static SupportedProtocolVersion,
    ) -> Result<(), HandshakeError> {
        let deadline = Instant::now() + CONNECT;
        let stream = TcpStream::connect_timeout(&address, CONNECT).map_err(HandshakeError::of)?;
        let mut stream = Limited { stream, deadline };
        let host = without_brackets(&self.host).to_owned();
        let name = ServerName::try_from(host).map_err(|_bad| HandshakeError::Name)?;
        let config = self.trust.config(&[version]).map_err(HandshakeError::Tls)?;
        let mut connection = ClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(HandshakeError::of)?;
        }
        Ok(())
    }

    /// One request. An error is a sentence.
    pub(crate) fn request(
        &self,
        method: &str,
        url: &str,
        if_none_match: Option<&str>,
    ) -> Result<Answer, String> {
        let started = Instant::now();
        let config = self.trust.config(&[&TLS13, &TLS12]).map_err(|error| error.to_string())?;
        let agent = agent(TlsConnector::with_config(config), self.addresses.clone());
        let mut request = http::Request::builder()
            .method(method)
            .uri(url)
            .header(http::header::ACCEPT, "application/json");
        if let Some(etag) = if_none_match {
            request = request.header(http::header::IF_NONE_MATCH, etag);
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let mut response = agent.run(request).map_err(|error| error.to_string())?;
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
        let body = body.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let (took, has_tls_1_2) = (started.elapsed(), self.has_tls_1_2);
        Ok(Answer { status, headers, bytes: body.len(), body, took, has_tls_1_2 })
    }
}

/// A connection with a time limit for all that goes over it.
struct Limited {
    stream: TcpStream,
    deadline: Instant,
}

impl Limited {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl io::Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl io::Write for Limited {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What came of a handshake, and the certificates that the server showed, its own first.
pub(crate) struct Handshake {
    pub(crate) outcome: Result<(), HandshakeError>,
    pub(crate) shown: Vec<CertificateDer<'static>>,
}

/// Why there is no TLS.
pub(crate) enum HandshakeError {
    /// The host is none that a certificate can name.
    Name,
    NoAnswer,
    Io(io::Error),
    Tls(Error),
}

impl HandshakeError {
    /// It is the certificate that is refused.
    pub(crate) const fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Tls(Error::InvalidCertificate(_)))
    }

    fn of(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return Self::NoAnswer;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
        tls.map_or(Self::Io(error), Self::Tls)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => out.write_str("the host is no name that a certificate can have"),
            Self::NoAnswer => write!(out, "no answer within {} s", CONNECT.as_secs()),
            Self::Io(error) => write!(out, "{error}"),
            Self::Tls(error) => out.write_str(&certificate_error(error)),
        }
    }
}

fn agent(tls: TlsConnector, addresses: Vec<SocketAddr>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .timeout_global(Some(ANSWER))
        .build();
    let connector = ().chain(TcpConnector::default()).chain(tls);
    Agent::with_parts(config, connector, Fixed(addresses))
}

/// The addresses that were found before.
#[derive(Debug)]
struct Fixed(Vec<SocketAddr>);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        self.0.iter().for_each(|address| found.push(*address));
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}
