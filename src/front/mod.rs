//! The front: one thread owns every client socket of a listener.
//!
//! ```text
//! client <-> front: accept, limits, read, check, rewrite a head --lane--> tiny_http: parse, queue
//!              ^------------- inbox: answers, by connection ------------  workers: answer
//! ```
//!
//! `tiny_http` has no limits of its own, so it serves a private socket (`lane.rs`). It sees only
//! complete heads that were checked and rewritten (`head`), at most one per connection. Workers
//! receive the requests from it and post their answers to the inbox (`inbox.rs`); the front writes
//! them. A pure state machine decides which connection may stay, and until when (`admission`). The
//! loop around it waits for readiness events and answers, and never for a client (`event_loop.rs`).
//! When the loop ends, so does the program.
//!
//! Invariant: a connection's socket, bytes and state belong to the front's thread alone. So they
//! need no lock and no atomic, and no request can begin while its connection is being evicted.

mod acceptor;
mod admission;
mod connection;
mod counts;
mod event_loop;
pub(crate) mod head;
mod inbox;
mod lane;
mod listener;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tiny_http::Server;

pub(crate) use counts::{Counts, Report};
use event_loop::Loop;
pub(crate) use inbox::{After, Id, Inbox, Message};
use lane::LaneError;

use crate::logging;

/// Descriptors for everything but public connections: the admin listener and its connections,
/// upstream, files, and what the fronts themselves need.
const OTHER_DESCRIPTORS: usize = 64;
/// The least limit of descriptors: a start needs some 20.
const MIN_DESCRIPTORS: usize = 32;
/// The least connection limit, however few descriptors there are.
const FEWEST: usize = 4;

/// The handle of a front's thread.
pub(crate) struct Front {
    address: SocketAddr,
    server: &'static Server,
    inbox: Arc<Inbox>,
    thread: JoinHandle<()>,
}

/// Why a front could not be started.
#[derive(Debug)]
pub(crate) enum FrontError {
    Listen { address: SocketAddr, cause: io::Error },
    Lane(LaneError),
    Io(io::Error),
}

impl fmt::Display for FrontError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, cause } => write!(out, "cannot listen on {address}: {cause}"),
            Self::Lane(error) => write!(out, "{error}"),
            Self::Io(error) => write!(out, "{error}"),
        }
    }
}

/// The limit of descriptors, which is below [`MIN_DESCRIPTORS`].
#[derive(Debug)]
pub(crate) struct TooFewDescriptors(usize);

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(limit) = self;
        write!(
            out,
            "the hard limit of descriptors is {limit}: it must be at least {MIN_DESCRIPTORS} \
             (ulimit -Hn)"
        )
    }
}

/// Raises the soft limit of descriptors to the hard one (getrlimit(2), `RLIMIT_NOFILE`). Returns
/// how many public connections that allows, at one descriptor each.
pub(crate) fn affordable_connections() -> Result<usize, TooFewDescriptors> {
    let limit = getrlimit(Resource::Nofile);
    // Any process may do so. If a sandbox forbids it, the soft limit applies.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit < MIN_DESCRIPTORS {
        return Err(TooFewDescriptors(limit));
    }
    Ok(limit.saturating_sub(OTHER_DESCRIPTORS).max(FEWEST))
}

/// Asks a front for its state. Any thread may have one.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<Inbox>);

impl Reporter {
    /// The front's state; `None` when it has ended, or has not reported within `time`. It never waits for a
    /// client, so it reports at once unless it lacks CPU time.
    pub(crate) fn report(&self, time: Duration) -> Option<Report> {
        let (sender, receiver) = mpsc::channel();
        self.0.post(&mut vec![Message::Report(sender)]);
        receiver.recv_timeout(time).ok()
    }
}

impl Front {
    /// Listens on `port` of `address` (`None`: of all addresses), and starts `tiny_http` behind a
    /// lane. Starts the thread called `name`, which serves at most `max_connections` at one time.
    pub(crate) fn start(
        name: &str,
        address: Option<IpAddr>,
        port: u16,
        max_connections: usize,
    ) -> Result<Self, FrontError> {
        let listener = listener::listen(address, port)
            .map_err(|(address, cause)| FrontError::Listen { address, cause })?;
        let address = listener.local_addr().map_err(FrontError::Io)?;
        let (server, lane) = lane::open().map_err(FrontError::Lane)?;
        let inbox = Arc::new(Inbox::new().map_err(|error| FrontError::Io(error.into()))?);
        let front = Loop::new(listener, lane, Arc::clone(&inbox), max_connections)
            .map_err(FrontError::Io)?;
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let ended = front.run();
                logging::fatal(format_args!("the front cannot continue: {ended}"));
            })
            .map_err(FrontError::Io)?;
        Ok(Self { address, server, inbox, thread })
    }

    /// The address on which it listens, with the port that the kernel chose if it was 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server from which workers receive requests.
    pub(crate) const fn server(&self) -> &'static Server {
        self.server
    }

    /// The inbox to which workers post answers.
    pub(crate) const fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Whether its thread has ended, by an error or a panic.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn reporter(&self) -> Reporter {
        Reporter(Arc::clone(&self.inbox))
    }

    /// Accepts the connections that the kernel has queued, then closes the listening socket.
    pub(crate) fn stop_accepting(&self) {
        self.inbox.post(&mut vec![Message::StopAccepting]);
    }
}
