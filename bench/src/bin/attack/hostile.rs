//! The hostile connections.

use std::collections::BTreeMap;
use std::ffi::c_short;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, pollfd};
use socket2::{Domain, Socket, Type};

use crate::attack::{Attack, Ending, Reading, Tactic};
use crate::is_over;
use crate::system::poll;

/// Threads that attack, and the addresses each comes from.
pub(crate) const THREADS: usize = 2;
const ADDRESSES: usize = 100;

impl Attack {
    /// Attacks until `end`, and returns the connections that are open then.
    pub(crate) fn drive(
        &self,
        target: SocketAddr,
        end: Instant,
        thread: usize,
    ) -> (Tally, Vec<Socket>) {
        let mut tally = Tally::default();
        let mut places: Vec<Result<Hostile<'_>, Instant>> = Vec::new();
        places.resize_with(self.connections.div_ceil(THREADS), || Err(Instant::now()));
        let mut polled = Vec::with_capacity(places.len());
        let mut count = thread;
        while Instant::now() < end && !places.is_empty() && !is_over() {
            polled.clear();
            let now = Instant::now();
            let mut due = now + Duration::from_millis(50);
            for place in &mut places {
                if place.as_ref().is_err_and(|again| *again <= now) {
                    count += THREADS;
                    *place = Hostile::connect(target, &self.tactic, count).ok_or(now);
                    tally.opened += u64::from(place.is_ok());
                }
                let (fd, events) = place.as_ref().map_or((-1, 0), |hostile| {
                    (hostile.socket.as_raw_fd(), hostile.events(&self.tactic, now))
                });
                let next = *place.as_ref().map_or_else(|again| again, |hostile| &hostile.due);
                if next > now {
                    due = due.min(next);
                }
                polled.push(pollfd { fd, events, revents: 0 });
            }
            poll(&mut polled, due.saturating_duration_since(now));
            let now = Instant::now();
            for (place, polled) in places.iter_mut().zip(&polled) {
                if place.as_mut().is_ok_and(|hostile| {
                    !hostile.advance(&self.tactic, polled.revents, now, &mut tally)
                }) {
                    *place = Err(now + self.tactic.again);
                }
            }
        }
        (tally, places.into_iter().flatten().map(|hostile| hostile.socket).collect())
    }
}

/// What the hostile clients saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    /// Connections that the gateway ended without a word.
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
struct Hostile<'a> {
    socket: Socket,
    left: &'a [u8],
    /// When the next bytes may be sent, or the next byte read.
    due: Instant,
    /// The end of what was read, in which a status line may have begun.
    tail: Vec<u8>,
    answered: bool,
}

impl<'a> Hostile<'a> {
    /// None when the kernel has no port or descriptor for it now.
    fn connect(target: SocketAddr, tactic: &'a Tactic, count: usize) -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.set_nonblocking(true).ok()?;
        if tactic.reading != Reading::All {
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
        let left = match tactic.openings.len() {
            0 => &[],
            openings => &tactic.openings[count / THREADS % openings][..],
        };
        Some(Self { socket, left, due: Instant::now(), tail: Vec::new(), answered: false })
    }

    /// What it waits for.
    fn events(&self, tactic: &Tactic, now: Instant) -> c_short {
        // The first POLLOUT also says that it is connected.
        let sends = !self.left.is_empty() || tactic.ending != Ending::Stays;
        let out = if sends && now >= self.due { POLLOUT } else { 0 };
        let read = match tactic.reading {
            Reading::All => POLLIN,
            Reading::AByteAtATime if now >= self.due => POLLIN,
            Reading::AByteAtATime | Reading::Never => 0,
        };
        out | read | POLLRDHUP
    }

    /// Does what can be done now; false when the connection has ended.
    fn advance(
        &mut self,
        tactic: &'a Tactic,
        ready: c_short,
        now: Instant,
        tally: &mut Tally,
    ) -> bool {
        let gone = ready & (POLLERR | POLLHUP | POLLRDHUP) != 0;
        let goes_on = match tactic.reading {
            Reading::All if ready & POLLIN != 0 || gone => self.read(65536, tally),
            Reading::AByteAtATime if ready & POLLIN != 0 && !gone => {
                self.due = now + tactic.pace;
                self.read(1, tally)
            }
            Reading::AByteAtATime | Reading::Never => !gone,
            Reading::All => true,
        };
        if !goes_on {
            tally.ended += u64::from(!self.answered);
            return false;
        }
        if ready & POLLOUT != 0 {
            // An error shows at the next look at the socket.
            let sent = (&self.socket).write(self.left).unwrap_or(0);
            self.left = &self.left[sent..];
        }
        if self.left.is_empty() {
            if ready & POLLOUT != 0 && tactic.ending != Ending::Stays {
                if tactic.ending == Ending::Reset {
                    let _ = self.socket.set_linger(Some(Duration::ZERO));
                }
                return false;
            }
            if !tactic.more.is_empty() {
                self.left = &tactic.more;
                self.due = self.due.max(now + tactic.pace);
            }
        }
        true
    }

    /// Reads what there is, at most `most` bytes at a time; false at the end of the connection.
    fn read(&mut self, most: usize, tally: &mut Tally) -> bool {
        let mut buffer = [0; 65536];
        match (&self.socket).read(&mut buffer[..most]) {
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
