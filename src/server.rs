//! The public listener and the fixed pool of workers that answer its requests.
//!
//! `tiny_http` accepts, reads and parses; a worker takes one whole request at a time, makes the
//! answer from what the cache holds and sends it by one write. A panic costs the request in which
//! it happened and nothing else. A listener whose accept loop ended is seen by
//! [`Listener::is_alive`], since `tiny_http` does not say so.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, error, log, warn};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tiny_http::{Request, Server};

use crate::cache::{Cache, Copy, Shown, Unavailable};
use crate::config::Listen;
use crate::documents::{Kind, MAX_SERVED_BYTES};
use crate::door::{self, Turn};
use crate::head;
use crate::logging::{self, Line};
use crate::reply::{self, Asked, Freshness, Reply, Why};
use crate::routes::{self, Probe, Resource, Route};

/// Connections that the kernel holds for us until they are accepted; it takes net.core.somaxconn
/// where that is less.
const BACKLOG: i32 = 1024;
/// How long a worker's write may wait for a client that does not read: not at all. The send buffer
/// takes a whole answer beside what the door lets a client leave untaken.
const WRITE_TIMEOUT: Duration = Duration::from_millis(1);
/// The send buffer: the largest answer, its headers, and as much again for what the kernel keeps
/// with small segments. It is a bound and not an allocation; the kernel doubles it, and takes
/// `net.core.wmem_max` (208 KiB by default) where that is less.
const SEND_BUFFER: usize = 2 * MAX_SERVED_BYTES;
/// The receive buffer: half of the longest head, which then comes in pieces. The kernel doubles it,
/// and would let it grow to megabytes, which count against the container's limit: what all
/// connections together can leave unread must fit into that.
const RECEIVE_BUFFER: usize = head::MAX_HEAD / 2;
/// How long sent bytes may stay unconfirmed before the kernel gives the client up: RFC 5482.
const UNCONFIRMED_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which the kernel asks whether a client is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(45);
/// Longest path in an access line, in characters.
const LOGGED_PATH: usize = 200;

/// What the workers of both listeners share.
pub(crate) struct Site {
    cache: Arc<Cache>,
    client_cache_ttl: Duration,
    stopping: AtomicBool,
}

/// An answer and what the access line says of it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) level: Level,
    /// `cache_hit` and age of the copy that was served.
    copy: Option<(bool, Duration)>,
}

impl Answer {
    /// An answer that no copy of a document went into.
    pub(crate) const fn without_copy(reply: Reply, level: Level) -> Self {
        Self { reply, level, copy: None }
    }
}

impl Site {
    pub(crate) const fn new(cache: Arc<Cache>, client_cache_ttl: Duration) -> Self {
        Self { cache, client_cache_ttl, stopping: AtomicBool::new(false) }
    }

    /// From now on `/readyz` says 503 and every answer asks its client to close.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The answer of the public listener.
    pub(crate) fn answer(&self, asked: &Asked<'_>) -> Answer {
        let now = SystemTime::now();
        let shown = self.cache.shown();
        let route = routes::public(asked.method, asked.path, &shown.paths);
        match route {
            Route::Get(Resource::Document(kind)) => self.document(kind, &shown, asked),
            Route::Get(Resource::UnknownIssuer) => self.of_unknown_issuer(&shown, asked),
            Route::Get(Resource::Probe(probe)) => {
                Answer::without_copy(self.probe(probe, asked), Level::Debug)
            }
            Route::Preflight => Answer::without_copy(reply::preflight(asked, now), Level::Info),
            Route::MethodNotAllowed { .. } | Route::NotFound => self.refuse(route, asked),
        }
    }

    /// The answer to what leads to nothing, on either listener.
    pub(crate) fn refuse(&self, route: Route, asked: &Asked<'_>) -> Answer {
        let now = SystemTime::now();
        let reply = match route {
            Route::MethodNotAllowed { allow } => reply::method_not_allowed(asked, now, allow),
            Route::Get(_) | Route::Preflight | Route::NotFound => {
                reply::text(asked, now, 404, "not found\n")
            }
        };
        Answer::without_copy(reply, Level::Info)
    }

    fn document(&self, kind: Kind, shown: &Shown, asked: &Asked<'_>) -> Answer {
        match self.cache.obtain(kind, shown) {
            Ok(copy) => self.copy(&copy, asked),
            Err(unavailable) => self.unavailable(unavailable, asked),
        }
    }

    fn copy(&self, copy: &Copy, asked: &Asked<'_>) -> Answer {
        let fresh = Freshness {
            age: copy.age,
            client_cache_ttl: self.client_cache_ttl,
            now: SystemTime::now(),
        };
        let reply = reply::document(&copy.document, asked, &fresh);
        Answer { reply, level: Level::Info, copy: Some((copy.cache_hit, copy.age)) }
    }

    fn unavailable(&self, unavailable: Unavailable, asked: &Asked<'_>) -> Answer {
        let Unavailable { why, retry_after } = unavailable;
        let reply = reply::unavailable(asked, SystemTime::now(), why, retry_after);
        Answer::without_copy(reply, Level::Info)
    }

    /// The path may be one of an issuer that the round under way is about to name.
    fn of_unknown_issuer(&self, shown: &Shown, asked: &Asked<'_>) -> Answer {
        if let Err(unavailable) = self.cache.obtain(Kind::Discovery, shown) {
            return self.unavailable(unavailable, asked);
        }
        let shown = self.cache.shown();
        let route = routes::public(asked.method, asked.path, &shown.paths);
        match route {
            Route::Get(Resource::Document(kind)) => self.document(kind, &shown, asked),
            Route::Get(_) | Route::Preflight | Route::MethodNotAllowed { .. } | Route::NotFound => {
                self.refuse(route, asked)
            }
        }
    }

    /// The answer to a probe, on either listener. It never waits for upstream.
    pub(crate) fn probe(&self, probe: Probe, asked: &Asked<'_>) -> Reply {
        let (state, says) = match probe {
            Probe::Livez => (Ok(()), ""),
            Probe::Readyz if self.is_stopping() => (Err(Why::Stopping), "not ready"),
            Probe::Readyz => (self.cache.ready(), "not ready"),
            Probe::Healthz => (self.cache.healthy(), "unhealthy"),
        };
        let now = SystemTime::now();
        match state {
            Ok(()) => reply::text(asked, now, 200, "ok\n"),
            Err(why) => reply::text(asked, now, 503, &format!("{says}: {}\n", why.word())),
        }
    }
}

/// A listening socket in `tiny_http`'s hands.
pub(crate) struct Listener {
    server: Arc<Server>,
    address: SocketAddr,
    fd: RawFd,
    /// The socket's place in /proc, and what stood there at the start.
    place: PathBuf,
    socket: Option<PathBuf>,
}

/// A listener that could not be opened.
#[derive(Debug)]
pub(crate) struct ListenError {
    setting: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, address, cause } = self;
        write!(out, "cannot listen on {address}: {cause}; {setting} takes another port")
    }
}

impl Listener {
    /// Listens, with the door before it, for `most` connections at a time; `setting` names the
    /// port's setting in an error.
    pub(crate) fn open(
        listen: Listen,
        setting: &'static str,
        most: usize,
    ) -> Result<Self, ListenError> {
        let open = |address: IpAddr| {
            let address = SocketAddr::new(address, listen.port);
            listen_on(address).map_err(|cause| ListenError { setting, address, cause })
        };
        let listener = match listen.address {
            Some(address) => open(address)?,
            None => match open(Ipv6Addr::UNSPECIFIED.into()) {
                // EAFNOSUPPORT and EADDRNOTAVAIL: this kernel has no IPv6, or has it switched off.
                Err(error)
                    if matches!(
                        error.cause.kind(),
                        ErrorKind::Unsupported | ErrorKind::AddrNotAvailable
                    ) || error.cause.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
                {
                    open(Ipv4Addr::UNSPECIFIED.into())?
                }
                outcome => outcome?,
            },
        };
        let failed = |cause| {
            let address = listen.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            ListenError { setting, address: SocketAddr::new(address, listen.port), cause }
        };
        let address = listener.local_addr().map_err(failed)?;
        let fd = listener.as_raw_fd();
        let place = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let socket = std::fs::read_link(&place).ok();
        let allowed = door::guard(fd, most);
        if allowed < most {
            warn!(
                allowed, wanted = most, listener = setting,
                hint = "raise the limit of descriptors (ulimit -n), or lower MAX_CONNECTIONS";
                "fewer connections than wanted"
            );
        }
        let server = Server::from_listener(listener, None)
            .map_err(|cause| failed(io::Error::other(cause)))?;
        Ok(Self { server: Arc::new(server), address, fd, place, socket })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts `workers` threads that answer by `answer` until the process ends.
    pub(crate) fn serve(
        &self,
        name: &str,
        workers: usize,
        answer: impl Fn(&Asked<'_>) -> Answer + Clone + Send + 'static,
        site: &Arc<Site>,
    ) -> io::Result<()> {
        for number in 1..=workers {
            let server = Arc::clone(&self.server);
            let (answer, site) = (answer.clone(), Arc::clone(site));
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                // An error says that the accept loop ended; is_alive() tells main.
                while let Ok(request) = server.recv() {
                    survive(|| exchange(request, &answer, &site));
                }
            })?;
        }
        Ok(())
    }

    /// Whether the accept loop still runs. It owns the socket, so its end closes that, be it by
    /// an error or by a panic, and another or no file stands in the socket's place. Where there
    /// is no /proc it cannot be seen, and counts as running.
    pub(crate) fn is_alive(&self) -> bool {
        std::fs::read_link(&self.place).ok() == self.socket
    }

    /// Whether somebody has connected within this time.
    pub(crate) fn has_newcomer(&self, within: Duration) -> bool {
        door::has_newcomer(self.fd, within)
    }

    /// From now on nobody connects any more; who did is still served.
    pub(crate) fn close_up(&self) {
        door::close_up(self.fd);
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: `::` means IPv4 as well.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit these. A receive timeout is not among them: it would apply to
    // accept() as well and end tiny_http's accept loop.
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs `exchange`; a panic in it is logged and ends there.
fn survive(exchange: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(exchange)).is_err() && logging::admits(Line::Panic) {
        error!("a request panicked, which is a mistake in this program; the worker goes on");
    }
}

fn exchange(request: Request, answer: &impl Fn(&Asked<'_>) -> Answer, site: &Site) {
    let begin = Instant::now();
    let turn = Turn::of(values(&request, head::DOOR).next().unwrap_or_default());
    let asked = asked(&request, site.is_stopping());
    let is_last = asked.connection == Some("close");
    let Answer { reply, level, copy } = answer(&asked);
    let line = if reply.status < 400 { Line::Request } else { Line::Failure };
    if log::log_enabled!(level) && logging::admits(line) {
        let path: String = asked.path.chars().take(LOGGED_PATH).collect();
        let duration = format_args!("{:.3}ms", begin.elapsed().as_secs_f64() * 1000.0).to_string();
        let (status, method, bytes) = (reply.status, asked.method, reply.body_length);
        if let Some((cache_hit, age)) = copy {
            let stale = site.cache.is_stale(age);
            let age = format!("{:.3}s", age.as_secs_f64());
            log!(level, path:%, status, cache_hit, duration:%, method:%, bytes, age:% = age, stale;
                "request");
        } else {
            log!(level, path:%, status, cache_hit = false, duration:%, method:%, bytes; "request");
        }
    }
    let mut writer = request.into_writer();
    let length = reply.bytes.len();
    // One write, which does not wait: who has no room for an answer has not taken the last one.
    let written = writer.write(&reply.bytes).and_then(|count| writer.flush().map(|()| count));
    drop(writer);
    match written {
        Ok(count) if count == length && is_last => turn.last(length),
        Ok(count) if count == length => turn.written(length),
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            turn.cut(true);
        }
        Ok(_) | Err(_) => turn.cut(false),
    }
}

/// The values of the fields of this name, in their order.
fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    let named = request.headers().iter().filter(move |header| header.field.equiv(name));
    named.map(|header| header.value.as_str())
}

/// What matters of a request, which the door has rewritten.
fn asked(request: &Request, stopping: bool) -> Asked<'_> {
    let connection = match values(request, head::DOOR_CONNECTION).next() {
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
        survive(|| panic!("planted"));
        let mut reached = false;
        survive(|| reached = true);
        assert!(reached);
    }

    #[test]
    fn a_listener_whose_accept_loop_ended_is_not_alive() {
        let listen = Listen { address: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
        let listener = Listener::open(listen, "LISTEN_PORT", 16).unwrap();
        assert!(listener.is_alive());
        let Listener { server, place, socket, .. } = listener;
        // tiny_http's way to end its accept loop from outside.
        drop(server);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_link(&place).ok() == socket {
            assert!(Instant::now() < deadline, "the socket is still there");
            thread::yield_now();
        }
    }
}
