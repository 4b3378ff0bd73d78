//! The listeners and the fixed pool of workers that answer the requests of each.
//!
//! `tiny_http` hands a worker one whole request at a time, which the front has checked; the worker
//! makes the answer from what the cache holds, and the front writes it. A panic costs the request
//! in which it happened and nothing else.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{Level, error, log};
use tiny_http::{Request, Server};

use crate::front::{Front, FrontError, Id, Inbox, Last, Message, Report, head};
use crate::http::reply::{Asked, Bytes};
use crate::logging::{self, Line};
use crate::site::{Answer, Site};

/// Longest path in an access line, in bytes; the front lets in ASCII only.
const LOGGED_PATH: usize = 200;
/// Answers that a worker makes before it posts them, while requests are waiting: the more, the
/// fewer wakes of the front, and the longer the first of them waits.
const BATCH: usize = 32;

/// A front and its workers.
pub(crate) struct Listener {
    front: Front,
    workers: Vec<JoinHandle<()>>,
}

/// A listener that could not be opened.
#[derive(Debug)]
pub(crate) struct ListenError {
    /// That of its port.
    setting: &'static str,
    cause: FrontError,
}

impl fmt::Display for ListenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, cause } = self;
        match cause {
            FrontError::Listen { .. } => write!(out, "{cause}; {setting} takes another port"),
            FrontError::Lane(_) | FrontError::Io(_) => {
                write!(out, "cannot serve the listener of {setting}: {cause}")
            }
        }
    }
}

impl Listener {
    /// Listens, with a front of this name, for `most` connections at a time; `setting` names the
    /// port's setting in an error.
    pub(crate) fn open(
        address: Option<IpAddr>,
        port: u16,
        setting: &'static str,
        front: &str,
        most: usize,
    ) -> Result<Self, ListenError> {
        let front = Front::start(front, address, port, most)
            .map_err(|cause| ListenError { setting, cause })?;
        Ok(Self { front, workers: Vec::new() })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// Starts `workers` threads that answer by `answer` until the process ends. `answer` calls its
    /// second argument before it waits.
    pub(crate) fn serve(
        &mut self,
        name: &str,
        workers: usize,
        answer: impl Fn(&Asked<'_>, &mut dyn FnMut()) -> Answer + Send + Sync + 'static,
        site: &Arc<Site>,
    ) -> io::Result<()> {
        let pool = Arc::new(Pool {
            server: self.front.server(),
            inbox: Arc::clone(self.front.inbox()),
            site: Arc::clone(site),
            answer,
            lead: Mutex::default(),
        });
        for number in 1..=workers {
            let pool = Arc::clone(&pool);
            let name = format!("{name}-{number}");
            self.workers.push(thread::Builder::new().name(name).spawn(move || pool.work())?);
        }
        Ok(())
    }

    /// Whether its front and all workers still run.
    pub(crate) fn is_alive(&self) -> bool {
        !self.front.has_ended() && !self.workers.iter().any(JoinHandle::is_finished)
    }

    /// How things stand; `None` when its front has ended, or has not answered in time.
    pub(crate) fn report(&self) -> Option<Report> {
        self.front.report()
    }

    /// From now on nobody connects any more; who did is still served.
    pub(crate) fn stop_accepting(&self) {
        self.front.stop_accepting();
    }
}

/// What the workers of one listener share.
struct Pool<A> {
    server: &'static Server,
    inbox: Arc<Inbox>,
    site: Arc<Site>,
    answer: A,
    lead: Mutex<()>,
}

/// The right to take requests, which one worker has at a time until it has to wait for upstream.
///
/// Without it a worker would be woken for each request, which costs more than the request: see
/// `tests/bench/front`.
struct Lead<'a> {
    inbox: &'a Inbox,
    lead: &'a Mutex<()>,
    held: Option<MutexGuard<'a, ()>>,
    /// Answers that are not posted yet.
    made: Vec<Message>,
    /// What remains to be done for the requests that were answered, when no client waits for it.
    answered: Vec<Answered>,
}

/// A request whose answer is made. It is logged and freed after the answer was posted: the client
/// waits for neither, and the thread that reads for `tiny_http` needs the same locks of malloc.
struct Answered {
    request: Request,
    line: Option<AccessLine>,
}

struct AccessLine {
    level: Level,
    status: u16,
    /// Of the body.
    bytes: usize,
    took: Duration,
    copy: Option<Served>,
}

/// What copy of a document was served.
struct Served {
    cache_hit: bool,
    age: Duration,
    stale: bool,
}

impl Lead<'_> {
    /// Waits until no other worker leads.
    fn take(&mut self) {
        if self.held.is_none() {
            self.held = Some(self.lead.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Before a wait: no answer and no other request waits with this worker.
    fn pass_on(&mut self) {
        self.post();
        self.held = None;
    }

    fn post(&mut self) {
        self.inbox.post(&mut self.made);
        for Answered { request, line } in self.answered.drain(..) {
            if let Some(line) = line {
                line.log(&request);
            }
            // It is dropped unanswered: what tiny_http would write itself is never used.
            drop(request.into_writer());
        }
    }
}

impl AccessLine {
    fn log(self, request: &Request) {
        let Self { level, status, bytes, took, copy } = self;
        let (path, method) = (request.url(), request.method().as_str());
        let path = path.get(..LOGGED_PATH).unwrap_or(path);
        let duration = Milliseconds(took);
        if let Some(Served { cache_hit, age, stale }) = copy {
            let age = Seconds(age);
            log!(level, path:%, status, cache_hit, duration:%, method:%, bytes, age:%, stale;
                "request");
        } else {
            log!(level, path:%, status, cache_hit = false, duration:%, method:%, bytes; "request");
        }
    }
}

impl<A: Fn(&Asked<'_>, &mut dyn FnMut()) -> Answer> Pool<A> {
    /// A worker's life. It ends only when `tiny_http` cannot go on, which ends the program.
    fn work(&self) {
        let Self { server, inbox, lead, .. } = self;
        let (made, answered) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let mut lead = Lead { inbox, lead, held: None, made, answered };
        loop {
            lead.take();
            let Ok(request) = server.recv() else { return };
            self.exchange(request, &mut lead);
            while lead.held.is_some() && lead.made.len() < BATCH {
                match server.try_recv() {
                    Ok(Some(request)) => self.exchange(request, &mut lead),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            lead.post();
        }
    }

    fn exchange(&self, request: Request, lead: &mut Lead<'_>) {
        let to = values(&request, head::CLIENT).next().and_then(Id::of_client);
        let made = survive(|| self.answer(&request, lead));
        let (answer, line) = made.map_or((None, None), |(answer, line)| (Some(answer), line));
        // All heads are the front's, and have it.
        if let Some(to) = to {
            lead.made.push(match answer {
                Some((bytes, last)) => Message::Answer { to, bytes, last },
                None => Message::NoAnswer { to },
            });
        }
        lead.answered.push(Answered { request, line });
    }

    /// The bytes of the answer, and the line for it if there may be one more.
    fn answer(
        &self,
        request: &Request,
        lead: &mut Lead<'_>,
    ) -> ((Bytes, Last), Option<AccessLine>) {
        let begin = Instant::now();
        let asked = asked(request, self.site.is_stopping());
        let Answer { reply, level, copy } = (self.answer)(&asked, &mut || lead.pass_on());
        let line = if reply.status < 400 { Line::Request } else { Line::Failure };
        let line = (log::log_enabled!(level) && logging::admits(line)).then(|| AccessLine {
            level,
            status: reply.status,
            bytes: reply.bytes.body().len(),
            took: begin.elapsed(),
            copy: copy.map(|(cache_hit, age)| Served {
                cache_hit,
                age,
                stale: self.site.cache.is_stale(age),
            }),
        });
        let last = if asked.connection == Some("close") { Last::Yes } else { Last::No };
        ((reply.bytes, last), line)
    }
}

/// As an access line has it: `0.062ms`.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3}ms", self.0.as_secs_f64() * 1000.0)
    }
}

/// As an access line has it: `0.084s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3}s", self.0.as_secs_f64())
    }
}

/// What `exchange` returns; nothing when it panics, which is logged.
fn survive<T>(exchange: impl FnOnce() -> T) -> Option<T> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(exchange));
    if outcome.is_err() && logging::admits(Line::Panic) {
        error!("a request panicked, which is a mistake in this program; the worker goes on");
    }
    outcome.ok()
}

/// The values of the fields of this name, in their order.
fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    let named = request.headers().iter().filter(move |header| header.field.equiv(name));
    named.map(|header| header.value.as_str())
}

/// What matters of a request, which the front has rewritten.
fn asked(request: &Request, stopping: bool) -> Asked<'_> {
    let connection = match values(request, head::ANSWER_CONNECTION).next() {
        Some("keep-alive") if !stopping => Some("keep-alive"),
        None if !stopping => None,
        Some(_) | None => Some("close"),
    };
    Asked {
        method: request.method().as_str(),
        path: request.url(),
        if_none_match: values(request, "If-None-Match").collect(),
        connection,
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
