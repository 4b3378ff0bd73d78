//! When to accept from the listening socket, and until when.
//!
//! epoll reports readiness once per edge, so it remembers whether a connection may still be waiting.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::listener::BACKLOG;

/// The front's end of the listening socket.
pub(super) struct Acceptor {
    /// `None` once no more connections are accepted.
    listener: Option<TcpListener>,
    /// A connection may be waiting at the listener.
    may_be_waiting: bool,
    /// When to accept again, if not now.
    not_before: Option<Instant>,
    /// While the program stops: how many more connections are accepted at most.
    left: Option<usize>,
}

/// The outcome of accept4(2).
pub(super) enum Accepted {
    Connection(TcpStream, SocketAddr),
    /// The client has gone, or a signal arrived: there may be another one.
    Gone,
    /// None is waiting.
    None,
    /// The kernel has no descriptor or no memory for a connection, now.
    Shortage(Errno),
    /// It can never succeed again.
    Broken(Errno),
}

impl Acceptor {
    pub(super) const fn new(listener: TcpListener) -> Self {
        Self { listener: Some(listener), may_be_waiting: true, not_before: None, left: None }
    }

    /// epoll says that a connection is waiting.
    pub(super) const fn note(&mut self) {
        self.may_be_waiting = true;
    }

    /// When to accept, `now` or later; `None`: not before epoll says so.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.may_be_waiting.then(|| self.not_before.map_or(now, |at| at.max(now)))
    }

    /// Do not accept before `at`.
    pub(super) const fn pause(&mut self, at: Instant) {
        self.not_before = Some(at);
    }

    /// Accept when a connection may be waiting.
    pub(super) const fn resume(&mut self) {
        self.not_before = None;
    }

    /// Accept the connections that the kernel may have queued, then no more.
    pub(super) const fn stop(&mut self) {
        self.left = Some(BACKLOG);
        self.may_be_waiting = true;
    }

    /// Whether it has been stopped, and connections may still be queued in the kernel.
    pub(super) const fn is_stopping(&self) -> bool {
        self.left.is_some() && self.listener.is_some()
    }

    /// Whether more connections may be accepted; closes the listening socket if not.
    pub(super) fn is_open(&mut self) -> bool {
        if self.left == Some(0) || self.listener.is_none() {
            self.close();
        }
        self.listener.is_some()
    }

    fn close(&mut self) {
        self.listener = None;
        self.may_be_waiting = false;
    }

    /// Accepts one connection, and does not wait for it.
    pub(super) fn accept(&mut self) -> Accepted {
        let Some(listener) = &self.listener else { return Accepted::None };
        match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                self.left = self.left.map(|left| left.saturating_sub(1));
                // Always an IP address: the listener is an IP socket.
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
                Accepted::Connection(socket.into(), peer)
            }
            Err(Errno::AGAIN) => {
                self.may_be_waiting = false;
                if self.left.is_some() {
                    self.close();
                }
                Accepted::None
            }
            Err(Errno::INTR | Errno::CONNABORTED) => Accepted::Gone,
            Err(error @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT)) => {
                Accepted::Broken(error)
            }
            Err(error) => Accepted::Shortage(error),
        }
    }
}
