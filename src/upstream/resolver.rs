//! Where upstream's name leads: to the address that Kubernetes gives each pod, or wherever DNS says.
//!
//! Without `UPSTREAM_HOST` the address of `KUBERNETES_SERVICE_HOST` is used, as client-go does: it
//! needs no DNS, whose settings differ from cluster to cluster. The name stays that of the URL, for
//! TLS and for `Host`. DNS is asked where there is no such address, or where it cannot be reached.
//!
//! ureq's own resolver also starts a thread for each look-up, but does not limit their number, and
//! panics when a thread cannot be started.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::locks::lock;

/// The most addresses of a name that are tried: ureq's array has room for 16.
const MAX_ADDRESSES: usize = 16;
/// How long a look-up may have been running for its answer to be used.
const LATE_AT_MOST: Duration = Duration::from_secs(60);
/// How long an answer of DNS serves further requests: both of a round, also where the second one
/// needs no new connection, which ureq finds out only after the look-up. `CoreDNS` has a TTL of 5 s
/// by default.
const ANSWER_SERVES: Duration = Duration::from_secs(5);

/// The way to upstream, which the resolvers of all agents share.
#[derive(Debug)]
pub(super) struct Way {
    /// That of `KUBERNETES_SERVICE_HOST`; `None`: there is DNS only.
    address: Option<SocketAddr>,
    asks_dns: AtomicBool,
    /// A look-up that was not over in time. Its answer serves a later one: getaddrinfo(3) cannot be
    /// cancelled, and where DNS is slow each new look-up would be late as well.
    late: Mutex<Option<LookUp>>,
    answer: Mutex<Option<Answer>>,
}

#[derive(Debug)]
struct Answer {
    /// Host and port.
    of: String,
    addresses: Vec<SocketAddr>,
    at: Instant,
}

#[derive(Debug)]
struct LookUp {
    /// Host and port.
    of: String,
    started: Instant,
    found: Receiver<io::Result<Vec<SocketAddr>>>,
}

impl Way {
    pub(super) fn new(address: Option<SocketAddr>) -> Self {
        Self {
            address,
            asks_dns: AtomicBool::default(),
            late: Mutex::default(),
            answer: Mutex::default(),
        }
    }

    /// The address that is used now; `None`: DNS is asked.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address.filter(|_| !self.asks_dns.load(Ordering::Relaxed))
    }

    /// From now on DNS is asked, or only where there is no address.
    pub(super) fn ask_dns(&self, asks_dns: bool) {
        self.asks_dns.store(asks_dns, Ordering::Relaxed);
    }

    /// The addresses of `of`, by a recent answer or the one look-up that runs for it.
    fn look_up(&self, of: String, timeout: Duration) -> Result<Vec<SocketAddr>, LookupError> {
        if let Some(answer) = &*lock(&self.answer)
            && answer.of == of
            && answer.at.elapsed() < ANSWER_SERVES
        {
            return Ok(answer.addresses.clone());
        }
        let late = lock(&self.late).take();
        let late = late.filter(|it| it.of == of && it.started.elapsed() < LATE_AT_MOST);
        let look_up = late.map_or_else(|| start(of), Ok).map_err(LookupError::Thread)?;
        match look_up.found.recv_timeout(timeout) {
            Ok(found) => {
                let addresses = found.map_err(LookupError::Lookup)?;
                let LookUp { of, .. } = look_up;
                let answer = Answer { of, addresses: addresses.clone(), at: Instant::now() };
                *lock(&self.answer) = Some(answer);
                Ok(addresses)
            }
            Err(RecvTimeoutError::Timeout) => {
                *lock(&self.late) = Some(look_up);
                Err(LookupError::NoAnswer(timeout))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(LookupError::Thread(io::Error::other("it ended without an answer")))
            }
        }
    }
}

fn start(of: String) -> io::Result<LookUp> {
    let (sender, found) = mpsc::sync_channel(1);
    let name = of.clone();
    let look_up = move || {
        // There is no receiver when another name was looked up meanwhile.
        let _ = sender.send(name.to_socket_addrs().map(Iterator::collect));
    };
    thread::Builder::new().name("resolver".to_owned()).spawn(look_up)?;
    Ok(LookUp { of, started: Instant::now(), found })
}

/// Why a name was not resolved.
#[derive(Debug)]
pub(crate) enum LookupError {
    Thread(io::Error),
    Lookup(io::Error),
    /// Within this time.
    NoAnswer(Duration),
    NoAddress,
}

impl fmt::Display for LookupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(out, "the thread for the DNS look-up: {error}"),
            Self::Lookup(error) => write!(out, "DNS: {error}"),
            Self::NoAnswer(timeout) => {
                write!(out, "no answer from DNS within {:.1}s", timeout.as_secs_f64())
            }
            Self::NoAddress => out.write_str("DNS has no address for the name"),
        }
    }
}

impl std::error::Error for LookupError {}

impl From<LookupError> for ureq::Error {
    fn from(error: LookupError) -> Self {
        Self::Other(Box::new(error))
    }
}

/// Resolves upstream's name for an agent.
#[derive(Debug)]
pub(super) struct WayResolver(pub(super) Arc<Way>);

impl Resolver for WayResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let name = uri
            .scheme()
            .zip(uri.authority())
            .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority))
            .ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let found = match self.0.address().map_or_else(|| name.parse(), Ok) {
            Ok(address) => vec![address],
            Err(_) => self.0.look_up(name, *timeout.after)?,
        };
        let mut addresses = self.empty();
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(LookupError::NoAddress.into()) } else { Ok(addresses) }
    }
}
