//! One client's socket, the heads that arrive on it, and the answer that is written to it.
//!
//! `admission` decides what a connection may do, and until when. Nothing here waits. epoll reports
//! readiness once per edge, so each connection remembers whether there may be more to read.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use socket2::SockRef;

use super::head::{self, Refusal};
use super::inbox::{After, Id};
use crate::http::answer::Bytes;

/// The most bytes read at a time, and so the most of a pipeline that is held while a request is
/// being answered.
pub(super) const READ_SIZE: usize = 2 << 10;
/// The most bytes that are read and dropped after the last answer or a refusal. Unread ones would
/// reset the connection before the client has read the answer: RFC 9112 §9.6.
const DROPPED_BYTES: usize = 32 << 10;
/// The most bytes of empty lines at one time before a request. RFC 9112 §2.2 asks servers to ignore
/// one line; a client that floods the front with them is refused.
const MAX_EMPTY_LINES: usize = 16;

/// A client's socket and its bytes.
pub(super) struct Connection {
    pub(super) id: Id,
    stream: TcpStream,
    /// The value of [`head::CLIENT`]: its number, a space, the peer's address.
    client: Box<str>,
    /// What arrived and was not forwarded. An idle connection has no buffer.
    received: Vec<u8>,
    /// How many of the first bytes of `received` are known to contain no complete head.
    searched: usize,
    unsent: Option<Unsent>,
    /// The kernel may have more bytes, or the end of the stream.
    readable: bool,
    /// The client has shut down its side of the stream.
    half_closed: bool,
    /// Bytes read and dropped since the last answer or a refusal.
    dropped: usize,
}

/// An answer that the send buffer had no room for, or only for a part of it.
struct Unsent {
    bytes: Bytes,
    /// How many bytes of it have been written.
    from: usize,
    after: After,
}

/// The outcome of looking for a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A complete, valid head was added to those for the lane.
    Forwarded,
    /// A part of one is held.
    Partial,
    /// No byte of one is held.
    Nothing,
    /// The client sends no more.
    End,
    /// The connection was reset.
    Gone,
    Refused(Refusal),
}

/// Whether a client whose bytes are dropped may send more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// It may send more.
    Open,
    /// It has closed, or has sent more than [`DROPPED_BYTES`].
    Over,
    /// The connection was reset.
    Gone,
}

/// The outcome of writing an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The kernel has all of it.
    Complete(After),
    Partly,
    /// The connection was reset.
    Gone,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The kernel keeps delivering what the client has not received yet.
    Deliver,
    /// The connection is reset, so that the kernel drops unread bytes at once.
    Discard,
    /// Reset if anything is unread.
    DiscardUnread,
}

/// The outcome of reading.
enum Received {
    Bytes(usize),
    Nothing,
    End,
    Gone,
}

impl Connection {
    pub(super) fn new(id: Id, stream: TcpStream, peer: SocketAddr) -> Self {
        // A listener on `::` sees IPv4 clients by their mapped addresses.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self {
            id,
            stream,
            client: format!("{} {peer}", id.number()).into(),
            received: Vec::new(),
            searched: 0,
            unsent: None,
            readable: true,
            half_closed: false,
            dropped: 0,
        }
    }

    pub(super) fn peer(&self) -> &str {
        self.client.split_once(' ').map_or("", |(_, peer)| peer)
    }

    /// Bytes of heads that are held.
    pub(super) const fn held(&self) -> usize {
        self.received.len()
    }

    /// Whether there may be more to read, or to forward.
    pub(super) const fn has_more(&self) -> bool {
        self.readable || self.searched < self.received.len()
    }

    /// Whether the method of the request that is held is HEAD; it may be partial.
    pub(super) fn has_method_head(&self) -> bool {
        self.received.starts_with(b"HEAD ")
    }

    /// Notes an event of epoll(7).
    pub(super) fn note(&mut self, flags: EventFlags) {
        let end = EventFlags::RDHUP | EventFlags::HUP;
        self.readable |= flags.intersects(EventFlags::IN | end);
        self.half_closed |= flags.intersects(end);
    }

    /// Looks for the next head, in what is held and in what the kernel has, and adds it to `heads`,
    /// rewritten for `tiny_http`. `scratch`, of [`READ_SIZE`] bytes, is overwritten.
    pub(super) fn next_head(&mut self, scratch: &mut [u8], heads: &mut Vec<u8>) -> Next {
        loop {
            if self.searched < self.received.len() {
                match find_head(&self.received, self.searched, &self.client, heads) {
                    Ok(Found::Head { end }) => {
                        self.discard_first(end);
                        return Next::Forwarded;
                    }
                    Ok(Found::None { begin, searched }) => {
                        self.discard_first(begin);
                        self.searched = searched;
                    }
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            let count = match self.read(scratch) {
                Received::Bytes(count) => count,
                // A CR alone is half of an empty line, and not the start of a head.
                Received::Nothing if matches!(*self.received, [] | [b'\r']) => {
                    return Next::Nothing;
                }
                Received::Nothing => return Next::Partial,
                Received::End => return Next::End,
                Received::Gone => return Next::Gone,
            };
            let bytes = scratch.get(..count).unwrap_or_default();
            // A head that arrives in one piece is not copied.
            if self.received.is_empty()
                && let Ok(Found::Head { end }) = find_head(bytes, 0, &self.client, heads)
            {
                self.hold(bytes.get(end..).unwrap_or_default());
                return Next::Forwarded;
            }
            self.hold(bytes);
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        // Exactly: a vector that doubles would have room for two heads.
        self.received.reserve_exact(bytes.len());
        self.received.extend_from_slice(bytes);
    }

    /// Removes the first bytes of what is held, and frees their memory.
    fn discard_first(&mut self, count: usize) {
        if count > 0 {
            self.received = self.received.get(count..).unwrap_or_default().to_vec();
        }
        self.searched = 0;
    }

    fn read(&mut self, scratch: &mut [u8]) -> Received {
        while self.readable {
            match (&self.stream).read(scratch) {
                Ok(0) => return Received::End,
                Ok(count) => {
                    // A short read has emptied the kernel's buffer. Only the end of the stream,
                    // which may have come with the same edge, is still to be read.
                    self.readable = count == scratch.len() || self.half_closed;
                    return Received::Bytes(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::Gone,
            }
        }
        Received::Nothing
    }

    /// Writes as much of an answer as the send buffer has room for, and keeps the rest.
    pub(super) fn write(&mut self, bytes: Bytes, after: After) -> Written {
        self.write_from(Unsent { bytes, from: 0, after })
    }

    /// Writes as much of the rest as the send buffer now has room for.
    pub(super) fn write_more(&mut self) -> Written {
        self.unsent.take().map_or(Written::Partly, |unsent| self.write_from(unsent))
    }

    fn write_from(&mut self, mut unsent: Unsent) -> Written {
        match write_now(&self.stream, &unsent.bytes, unsent.from) {
            Ok(count) => unsent.from += count,
            Err(_) => return Written::Gone,
        }
        if unsent.from == unsent.bytes.length() {
            return Written::Complete(unsent.after);
        }
        self.unsent = Some(unsent);
        Written::Partly
    }

    /// Writes the answer to a refused head, and ends the stream.
    pub(super) fn refuse(&mut self, answer: &Bytes) {
        // If there is no room for it, the client has not even read its previous answer.
        let _ = write_now(&self.stream, answer, 0);
        self.finish();
    }

    /// Ends the stream towards the client, and drops what is held.
    pub(super) fn finish(&mut self) {
        // It fails only when the connection was reset.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.received = Vec::new();
        self.searched = 0;
    }

    /// Reads and drops what the client still sends, up to [`DROPPED_BYTES`].
    pub(super) fn drop_input(&mut self, scratch: &mut [u8]) -> Input {
        while self.dropped < DROPPED_BYTES {
            match self.read(scratch) {
                Received::Bytes(count) => self.dropped += count,
                Received::Nothing => return Input::Open,
                Received::End => return Input::Over,
                Received::Gone => return Input::Gone,
            }
        }
        Input::Over
    }

    /// Bytes of answers in the kernel's memory that the client has not acknowledged. Those in
    /// `unsent` cost little and do not count: all answers share the document.
    pub(super) fn unread(&self) -> usize {
        unacknowledged(&self.stream)
    }

    /// Whether the client has acknowledged everything, except perhaps the end of the stream, which
    /// the kernel counts as one byte.
    pub(super) fn has_read_all(&self) -> bool {
        self.unsent.is_none() && self.unread() <= 1
    }

    pub(super) fn close(self, how: Close) {
        let resets = match how {
            Close::Deliver => false,
            Close::Discard => true,
            Close::DiscardUnread => !self.has_read_all(),
        };
        if resets {
            // It fails only for what is not a socket.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

enum Found {
    /// It was forwarded; the next one begins at `end`.
    Head { end: usize },
    /// None is complete yet; one may begin at `begin`. Of what follows that, `searched` bytes need not be
    /// looked at again.
    None { begin: usize, searched: usize },
}

/// Looks for a complete head in `bytes`, of which the first `searched` contain none, and adds it to
/// `heads`, rewritten for `tiny_http`.
fn find_head(
    bytes: &[u8],
    searched: usize,
    client: &str,
    heads: &mut Vec<u8>,
) -> Result<Found, Refusal> {
    let begin = head::empty_lines(bytes);
    if begin > MAX_EMPTY_LINES {
        return Err(head::EMPTY_LINES);
    }
    let text = bytes.get(begin..).unwrap_or_default();
    let explain = |refusal: Refusal| match refusal.status {
        400 => {
            head::other_protocol(bytes).or_else(|| head::other_protocol(text)).unwrap_or(refusal)
        }
        _ => refusal,
    };
    let Some(length) = head::length(text, searched.saturating_sub(begin)).map_err(explain)? else {
        return match head::other_protocol(text) {
            Some(refusal) => Err(refusal),
            None => Ok(Found::None { begin, searched: text.len() }),
        };
    };
    let (head, follows) = text.split_at_checked(length).unwrap_or((text, &[]));
    let head = head::check(head).map_err(explain)?;
    let Some(body) = head::body_length(&head, follows)? else {
        // So that the next call finds the end of this head again.
        return Ok(Found::None { begin, searched: length.saturating_sub(1) });
    };
    head.rewrite(client, heads);
    Ok(Found::Head { end: begin + length + body })
}

/// Writes what follows the first `from` bytes, in one write that does not wait; returns how many
/// bytes the kernel accepted.
fn write_now(mut stream: &TcpStream, bytes: &Bytes, from: usize) -> io::Result<usize> {
    let head = bytes.head.get(from..).unwrap_or_default();
    let of_body = from.saturating_sub(bytes.head.len());
    let body = bytes.body().get(of_body..).unwrap_or_default();
    loop {
        match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Bytes that were written and that the peer has not acknowledged: tcp(7), SIOCOUTQ, which is the
/// same number as TIOCOUTQ. No maintained crate has a safe call for it.
#[expect(unsafe_code, reason = "ioctl(2) takes a pointer; rustix has no safe call for SIOCOUTQ")]
fn unacknowledged(stream: &TcpStream) -> usize {
    let mut bytes: std::ffi::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int to `bytes`, which is one.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}
