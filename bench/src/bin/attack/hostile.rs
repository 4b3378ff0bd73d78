//! The hostile connections.

use std::collections::BTreeMap;
use std::ffi::c_short;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, pollfd};
use socket2::{Domain, Socket, Type};

use crate::attack::{Attack, Behaviour, Ending, Reading};
use crate::is_interrupted;
use crate::system::poll;

/// Threads that attack, and how many source addresses each one has.
pub(crate) const THREADS: usize = 2;
const ADDRESSES: usize = 100;

impl Attack {
    /// Attacks until `end`, and returns the connections that are open then.
    pub(crate) fn generate_load(
        &self,
        target: SocketAddr,
        end: Instant,
        thread: usize,
    ) -> (Tally, Vec<Socket>) {
        let mut tally = Tally::default();
        let mut slots: Vec<Result<HostileConnection<'_>, Instant>> = Vec::new();
        slots.resize_with(self.connections.div_ceil(THREADS), || Err(Instant::now()));
        let mut polled = Vec::with_capacity(slots.len());
        let mut count = thread;
        while Instant::now() < end && !slots.is_empty() && !is_interrupted() {
            polled.clear();
            let now = Instant::now();
            let mut due = now + Duration::from_millis(50);
            for slot in &mut slots {
                if slot.as_ref().is_err_and(|again| *again <= now) {
                    count += THREADS;
                    *slot = HostileConnection::connect(target, &self.behaviour, count).ok_or(now);
                    tally.opened += u64::from(slot.is_ok());
                }
                let (fd, events) = slot.as_ref().map_or((-1, 0), |hostile| {
                    (hostile.socket.as_raw_fd(), hostile.events(&self.behaviour, now))
                });
                let next = *slot.as_ref().map_or_else(|again| again, |hostile| &hostile.due);
                if next > now {
                    due = due.min(next);
                }
                polled.push(pollfd { fd, events, revents: 0 });
            }
            poll(&mut polled, due.saturating_duration_since(now));
            let now = Instant::now();
            for (slot, polled) in slots.iter_mut().zip(&polled) {
                if slot.as_mut().is_ok_and(|hostile| {
                    !hostile.advance(&self.behaviour, polled.revents, now, &mut tally)
                }) {
                    *slot = Err(now + self.behaviour.reconnect_after);
                }
            }
        }
        (tally, slots.into_iter().flatten().map(|hostile| hostile.socket).collect())
    }
}

/// What became of the hostile connections.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    /// Connections that ended without an answer.
    pub(crate) ended: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.ended += other.ended;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }

    pub(crate) fn show(&self) -> String {
        let mut parts: Vec<_> = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{status}:{}", short(*count)))
            .collect();
        if self.ended > 0 {
            parts.push(format!("ended:{}", short(self.ended)));
        }
        if parts.is_empty() {
            format!("none ({} opened)", short(self.opened))
        } else {
            parts.join(" ")
        }
    }
}

pub(crate) fn short(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1000) }
}

/// One hostile connection.
struct HostileConnection<'a> {
    socket: Socket,
    /// What is still to be sent.
    left: &'a [u8],
    /// When it may send or read next.
    due: Instant,
    /// The end of what was read, which may be the start of a status line.
    tail: Vec<u8>,
    answered: bool,
}

impl<'a> HostileConnection<'a> {
    /// None when the kernel has no port or descriptor for it now.
    fn connect(target: SocketAddr, behaviour: &'a Behaviour, count: usize) -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.set_nonblocking(true).ok()?;
        if behaviour.reading != Reading::All {
            socket.set_recv_buffer_size(1024).ok()?;
        }
        // Below 127.1.0.0/16: 100 addresses of each thread.
        let host = u8::try_from(1 + count / THREADS % ADDRESSES).unwrap();
        let address = Ipv4Addr::new(127, 1, u8::try_from(count % THREADS).unwrap(), host);
        socket.bind(&SocketAddr::from((address, 0)).into()).ok()?;
        let connecting = socket.connect(&target.into());
        if connecting.is_err_and(|error| error.raw_os_error() != Some(libc::EINPROGRESS)) {
            return None;
        }
        let left = match behaviour.first.len() {
            0 => &[],
            number => &behaviour.first[count / THREADS % number][..],
        };
        Some(Self { socket, left, due: Instant::now(), tail: Vec::new(), answered: false })
    }

    /// What poll(2) should wait for.
    fn events(&self, behaviour: &Behaviour, now: Instant) -> c_short {
        // The first POLLOUT also says that it is connected.
        let sends = !self.left.is_empty() || behaviour.ending != Ending::StayOpen;
        let out = if sends && now >= self.due { POLLOUT } else { 0 };
        let read = match behaviour.reading {
            Reading::All => POLLIN,
            Reading::OneByteAtATime if now >= self.due => POLLIN,
            Reading::OneByteAtATime | Reading::Never => 0,
        };
        out | read | POLLRDHUP
    }

    /// Does what can be done now; false when the connection has ended.
    fn advance(
        &mut self,
        behaviour: &'a Behaviour,
        ready: c_short,
        now: Instant,
        tally: &mut Tally,
    ) -> bool {
        let gone = ready & (POLLERR | POLLHUP | POLLRDHUP) != 0;
        let is_open = match behaviour.reading {
            Reading::All if ready & POLLIN != 0 || gone => self.read(65536, tally),
            Reading::OneByteAtATime if ready & POLLIN != 0 && !gone => {
                self.due = now + behaviour.interval;
                self.read(1, tally)
            }
            Reading::OneByteAtATime | Reading::Never => !gone,
            Reading::All => true,
        };
        if !is_open {
            tally.ended += u64::from(!self.answered);
            return false;
        }
        if ready & POLLOUT != 0 {
            // An error is seen at the next poll.
            let sent = (&self.socket).write(self.left).unwrap_or(0);
            self.left = &self.left[sent..];
        }
        if self.left.is_empty() {
            if ready & POLLOUT != 0 && behaviour.ending != Ending::StayOpen {
                if behaviour.ending == Ending::Reset {
                    let _ = self.socket.set_linger(Some(Duration::ZERO));
                }
                return false;
            }
            if !behaviour.repeated.is_empty() {
                self.left = &behaviour.repeated;
                self.due = self.due.max(now + behaviour.interval);
            }
        }
        true
    }

    /// Reads what there is, at most `limit` bytes; false at the end of the connection.
    fn read(&mut self, limit: usize, tally: &mut Tally) -> bool {
        let mut buffer = [0; 65536];
        match (&self.socket).read(&mut buffer[..limit]) {
            Ok(0) => false,
            Ok(count) => {
                self.count_answers(&buffer[..count], tally);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn count_answers(&mut self, bytes: &[u8], tally: &mut Tally) {
        const START: &[u8] = b"HTTP/1.1 ";
        const LENGTH: usize = START.len() + 3;
        self.tail.extend_from_slice(bytes);
        for line in self.tail.windows(LENGTH).filter(|line| line.starts_with(START)) {
            let status =
                std::str::from_utf8(&line[START.len()..]).ok().and_then(|s| s.parse().ok());
            *tally.statuses.entry(status.unwrap_or(0)).or_default() += 1;
            self.answered = true;
        }
        self.tail.drain(..self.tail.len().saturating_sub(LENGTH - 1));
    }
}
