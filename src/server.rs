//! The listeners, and the fixed pool of workers that answers the requests of each.
//!
//! `tiny_http` gives a worker one complete request at a time, which the front has checked. The
//! worker makes the answer from the cache, and the front writes it. A panic ends one request, not
//! the worker.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{Level, error, log};
use tiny_http::Server;

use crate::front::{After, Front, FrontError, Id, Inbox, Message, Report, Reporter, head};
use crate::http::answer::Bytes;
use crate::http::{Connection, Request};
use crate::locks::lock;
use crate::logging::line::milliseconds;
use crate::logging::{self, LineKind};
use crate::metrics::{AnsweredRequest, Metrics};
use crate::site::{Answered, Served, Site};

/// The longest path in an access line, in bytes. Paths are ASCII: the front accepts no others.
const LOGGED_PATH: usize = 200;
/// The most answers that a worker makes before it posts them, while requests are queued. A larger
/// batch wakes the front less often, and its first answer waits longer.
const BATCH: usize = 32;

/// How long a front may take to report to the thread that watches it, which can wait.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A front and its workers.
pub(crate) struct Listener {
    front: Front,
    workers: Vec<JoinHandle<()>>,
}

/// A listener that could not be opened.
#[derive(Debug)]
pub(crate) struct ListenError {
    /// The name of its port's setting.
    setting: &'static str,
    cause: FrontError,
}

impl fmt::Display for ListenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, cause } = self;
        match cause {
            FrontError::Listen { cause: error, .. } => {
                write!(out, "{cause}")?;
                let kind = error.kind();
                if kind == ErrorKind::AddrInUse {
                    write!(out, "; set {setting} to another port")?;
                } else if kind == ErrorKind::PermissionDenied {
                    write!(out, "; set {setting} to a port from 1024 on")?;
                } else if kind == ErrorKind::AddrNotAvailable {
                    let setting = setting.replace("_PORT", "_ADDR");
                    write!(out, "; set {setting} to an address of this machine")?;
                }
                Ok(())
            }
            FrontError::Lane(_) | FrontError::Io(_) => {
                write!(out, "cannot serve the listener of {setting}: {cause}")
            }
        }
    }
}

impl Listener {
    /// Listens, and serves at most `max_connections` at one time. `setting` is the name of the
    /// port's setting, for an error; `thread` is the name of the front's thread.
    pub(crate) fn open(
        address: Option<IpAddr>,
        port: u16,
        setting: &'static str,
        thread: &str,
        max_connections: usize,
    ) -> Result<Self, ListenError> {
        let front = Front::start(thread, address, port, max_connections)
            .map_err(|cause| ListenError { setting, cause })?;
        Ok(Self { front, workers: Vec::new() })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// Starts `workers` threads called `thread-1` and so on, which answer with `answer` until the
    /// process ends, and count in `metrics`. `answer` must call its second argument before it waits. `site`
    /// says whether the program is stopping. An error when a thread cannot be started.
    pub(crate) fn serve(
        &mut self,
        thread: &str,
        workers: usize,
        answer: impl Fn(&Request<'_>, &mut dyn FnMut()) -> Answered + Send + Sync + 'static,
        site: &Arc<Site>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<()> {
        let pool = Arc::new(Pool {
            server: self.front.server(),
            inbox: Arc::clone(self.front.inbox()),
            site: Arc::clone(site),
            metrics: Arc::clone(metrics),
            answer,
            lead: Mutex::default(),
        });
        for number in 1..=workers {
            let pool = Arc::clone(&pool);
            let name = format!("{thread}-{number}");
            self.workers.push(thread::Builder::new().name(name).spawn(move || pool.work())?);
        }
        Ok(())
    }

    /// Whether the front's thread and all workers are running.
    pub(crate) fn is_alive(&self) -> bool {
        !self.front.has_ended() && !self.workers.iter().any(JoinHandle::is_finished)
    }

    /// The state of the front; `None` when it has ended, or has not reported within a second.
    pub(crate) fn report(&self) -> Option<Report> {
        self.front.reporter().report(REPORT_TIMEOUT)
    }

    /// Asks the front for its state, from another thread.
    pub(crate) fn reporter(&self) -> Reporter {
        self.front.reporter()
    }

    /// Accepts the connections that the kernel has queued, then no more. Serves the open ones.
    pub(crate) fn stop_accepting(&self) {
        self.front.stop_accepting();
    }
}

/// What the workers of one listener share.
struct Pool<A> {
    server: &'static Server,
    inbox: Arc<Inbox>,
    site: Arc<Site>,
    metrics: Arc<Metrics>,
    answer: A,
    /// Held by the leader: the worker that receives requests.
    lead: Mutex<()>,
}

impl<A: Fn(&Request<'_>, &mut dyn FnMut()) -> Answered> Pool<A> {
    /// A worker's loop. It ends only when `tiny_http` has failed, which ends the program.
    fn work(&self) {
        let mut worker = Worker {
            inbox: &self.inbox,
            lead: &self.lead,
            held: None,
            messages: Vec::with_capacity(BATCH),
            done: Vec::with_capacity(BATCH),
        };
        loop {
            worker.take_lead();
            let Ok(request) = self.server.recv() else { return };
            self.exchange(request, &mut worker);
            while worker.held.is_some() && worker.messages.len() < BATCH {
                match self.server.try_recv() {
                    Ok(Some(request)) => self.exchange(request, &mut worker),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            worker.post();
        }
    }

    /// Makes the answer to one request, for the next [`Worker::post`].
    fn exchange(&self, request: tiny_http::Request, worker: &mut Worker<'_>) {
        let to = values(&request, head::CLIENT).next().and_then(Id::of_client);
        let made = survive(|| self.answer(&request, worker));
        let (answer, line) = made.map_or((None, None), |(answer, line)| (Some(answer), line));
        // The front names the connection in every head.
        if let Some(to) = to {
            worker.messages.push(match answer {
                Some((bytes, after)) => Message::Answer { to, bytes, after },
                None => Message::NoAnswer { to },
            });
        }
        worker.done.push(Done { request, line });
    }

    /// The bytes of the answer, and its access line if one more may be written.
    fn answer(
        &self,
        request: &tiny_http::Request,
        worker: &mut Worker<'_>,
    ) -> ((Bytes, After), Option<AccessLine>) {
        let started = Instant::now();
        let request = parse(request, self.site.is_stopping().then_some(Connection::Close));
        let Answered { answer, level, route, copy } =
            (self.answer)(&request, &mut || worker.pass_lead());
        let duration = started.elapsed();
        self.metrics.answered(AnsweredRequest {
            route,
            method: request.method,
            status: answer.status,
            duration,
            is_stale: copy.as_ref().is_some_and(|copy| copy.is_stale),
        });
        let line = if answer.status < 400 { LineKind::Request } else { LineKind::Failure };
        let line = (log::log_enabled!(level) && logging::admits(line)).then(|| AccessLine {
            level,
            status: answer.status,
            bytes: answer.bytes.body().len(),
            duration,
            copy,
        });
        let after = if request.connection == Some(Connection::Close) {
            After::Close
        } else {
            After::KeepAlive
        };
        ((answer.bytes, after), line)
    }
}

/// One worker, by the Leader/Followers pattern: only the leader receives requests, until it has to
/// wait for upstream.
///
/// If all workers received requests, each request would wake one of them, which costs more than the
/// answer: see `bench/compare`.
struct Worker<'a> {
    inbox: &'a Inbox,
    lead: &'a Mutex<()>,
    /// The lock on `lead`, while this worker is the leader.
    held: Option<MutexGuard<'a, ()>>,
    /// Answers that are not posted yet.
    messages: Vec<Message>,
    done: Vec<Done>,
}

/// A request whose answer is made. It is logged and freed only after the answer was posted, so that
/// the client waits for neither. `tiny_http`'s reader competes for the same locks of malloc.
struct Done {
    request: tiny_http::Request,
    line: Option<AccessLine>,
}

impl Worker<'_> {
    /// Waits until this worker is the leader.
    fn take_lead(&mut self) {
        if self.held.is_none() {
            self.held = Some(lock(self.lead));
        }
    }

    /// Posts the answers made so far, and lets another worker lead. Called before this worker
    /// waits, so that no other request waits with it.
    fn pass_lead(&mut self) {
        self.post();
        self.held = None;
    }

    fn post(&mut self) {
        self.inbox.post(&mut self.messages);
        logging::together(|| {
            for Done { request, line } in self.done.drain(..) {
                if let Some(line) = line {
                    line.log(&request);
                }
                // It is dropped unanswered: `tiny_http` never writes an answer.
                drop(request.into_writer());
            }
        });
    }
}

/// A line of the access log, without method and path, which are read from the request.
struct AccessLine {
    level: Level,
    status: u16,
    /// The length of the body.
    bytes: usize,
    duration: Duration,
    copy: Option<Served>,
}

impl AccessLine {
    fn log(self, request: &tiny_http::Request) {
        let Self { level, status, bytes, duration, copy } = self;
        let (path, method) = (request.url(), request.method().as_str());
        let path = path.get(..LOGGED_PATH).unwrap_or(path);
        let duration_ms = milliseconds(duration);
        let cache_hit = copy.as_ref().is_some_and(|copy| copy.is_hit);
        let age_ms = copy.as_ref().map(|copy| milliseconds(copy.age));
        let stale = copy.as_ref().map(|copy| copy.is_stale);
        let value = |name| logging::client(values(request, name).next()).flatten();
        let peer = value(head::CLIENT).and_then(|client| client.split_once(' '));
        let peer = peer.map(|(_, peer)| peer);
        let (user_agent, forwarded_for) = (value("User-Agent"), value("X-Forwarded-For"));
        log!(
            level, path:%, status, cache_hit, duration_ms, method:%, bytes, age_ms, stale, peer,
            user_agent, forwarded_for; "request"
        );
    }
}

/// What `exchange` returns; `None` when it panics, which is logged.
fn survive<T>(exchange: impl FnOnce() -> T) -> Option<T> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(exchange));
    if outcome.is_err() && logging::admits(LineKind::Panic) {
        error!("a request panicked, which is a bug in this program; the worker continues");
    }
    outcome.ok()
}

/// The values of the fields called `name`, in their order.
fn values<'a>(
    request: &'a tiny_http::Request,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    let named = request.headers().iter().filter(move |header| header.field.equiv(name));
    named.map(|header| header.value.as_str())
}

/// A request as the front has rewritten it. `connection` overrides what the front asks the answer
/// to say about the connection.
fn parse(request: &tiny_http::Request, connection: Option<Connection>) -> Request<'_> {
    let by_front = match values(request, head::ANSWER_CONNECTION).next() {
        Some("keep-alive") => Some(Connection::KeepAlive),
        Some(_) => Some(Connection::Close),
        None => None,
    };
    Request {
        method: request.method().as_str(),
        path: request.url(),
        if_none_match: values(request, "If-None-Match").collect(),
        connection: connection.or(by_front),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_survives_a_request_that_panics() {
        assert_eq!(survive(|| panic!("planted")), None::<()>);
        assert_eq!(survive(|| 1), Some(1));
    }
}
