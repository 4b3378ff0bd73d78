//! The lane: the one way to `tiny_http`, which serves a private Unix socket and nothing else.
//!
//! Request heads go one way; nothing comes back, since workers answer through the inbox. Nobody else
//! can connect: the listening socket has room for one connection, which is ours or the program does
//! not start, and it is shut before `tiny_http` sees it.
//!
//! An abstract Unix name has no permissions, so any process in the network namespace could connect
//! between listen(2) and shutdown(2). With a backlog of 0 the kernel queues one connection (unix(7),
//! listen(2)), and whoever is second, we or a stranger, gets EAGAIN: that is how a stranger who was
//! first is noticed. The kernel chooses the name (autobind), so that two gateways in one network
//! namespace do not use the same.
//!
//! `tiny_http`'s accept loop ends with an error after that one connection, because its listener is
//! shut. Its `Server` is never dropped: `Drop` panics on a listener without a path.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tiny_http::Server;

/// How long `tiny_http` may take to read the first head; before that it starts five threads.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE: &str = "/lane";
/// The longest buffer that is kept between two turns of the front's loop, in bytes.
const KEPT_BUFFER: usize = 64 << 10;

/// Why the lane could not be opened.
#[derive(Debug)]
pub(crate) enum LaneError {
    Socket(io::Error),
    /// Another process connected first.
    Stranger,
    Server(io::Error),
    /// The first head did not come out at the other end.
    NoHead,
}

impl fmt::Display for LaneError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(out, "cannot open a private Unix socket: {error}"),
            Self::Stranger => out.write_str(
                "another process in this network namespace connected first to the private Unix \
                 socket, as only an attacker would: find it, stop it, and start again",
            ),
            Self::Server(error) => write!(out, "cannot start tiny_http: {error}"),
            Self::NoHead => write!(out, "tiny_http read no request within {PROBE_TIMEOUT:?}"),
        }
    }
}

pub(super) struct Lane {
    stream: UnixStream,
    /// Heads that are not yet written.
    pub(super) heads: Vec<u8>,
}

/// Starts `tiny_http` and returns the way to it, through which a first head has been sent.
pub(super) fn open() -> Result<(&'static Server, Lane), LaneError> {
    let listener = listen().map_err(LaneError::Socket)?;
    let stream = connect_first(&listener)?;
    listener.shutdown(Shutdown::Read).map_err(LaneError::Socket)?;
    let listener = UnixListener::from(OwnedFd::from(listener));
    let server = Server::from_listener(listener, None)
        .map_err(|error| LaneError::Server(io::Error::other(error)))?;
    let server: &'static Server = Box::leak(Box::new(server));
    prove(server, &stream)?;
    // If a panic drops a request, the kernel discards the answer that tiny_http writes for it.
    stream.shutdown(Shutdown::Read).map_err(LaneError::Socket)?;
    Ok((server, Lane { stream, heads: Vec::new() }))
}

/// A listening socket with a name that the kernel chooses, and room for one connection.
fn listen() -> io::Result<Socket> {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // An address without a name: unix(7), "Autobind feature".
    listener.bind(&SockAddr::unix("")?)?;
    listener.listen(0)?;
    Ok(listener)
}

/// Takes that room; an error when another process has done so before.
fn connect_first(listener: &Socket) -> Result<UnixStream, LaneError> {
    let connect = || {
        let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // So that it does not wait until a stranger's connection is accepted.
        stream.set_nonblocking(true)?;
        stream.connect(&listener.local_addr()?)?;
        stream.set_nonblocking(false)?;
        Ok(UnixStream::from(OwnedFd::from(stream)))
    };
    connect().map_err(|error: io::Error| {
        let is_full = error.kind() == ErrorKind::WouldBlock;
        if is_full { LaneError::Stranger } else { LaneError::Socket(error) }
    })
}

/// Sends one head, and waits until it has come out and `tiny_http`'s accept loop has ended.
fn prove(server: &Server, mut stream: &UnixStream) -> Result<(), LaneError> {
    let probe = format!("GET {PROBE} HTTP/1.1\r\n\r\n");
    stream.write_all(probe.as_bytes()).map_err(LaneError::Socket)?;
    let (mut came, mut shut) = (false, false);
    while !(came && shut) {
        match server.recv_timeout(PROBE_TIMEOUT) {
            Ok(Some(request)) => {
                came = request.url() == PROBE;
                drop(request.into_writer());
            }
            Ok(None) => return Err(LaneError::NoHead),
            // EINVAL: accept(2) on a listener that is shut.
            Err(error) if error.kind() == ErrorKind::InvalidInput => shut = true,
            Err(error) => return Err(LaneError::Server(error)),
        }
    }
    Ok(())
}

impl Lane {
    /// Writes the heads so far if they are long: those of a whole turn could take much memory.
    pub(super) fn flush_if_long(&mut self) -> io::Result<()> {
        if self.heads.len() < KEPT_BUFFER { Ok(()) } else { self.flush() }
    }

    /// Writes the heads so far. It waits while `tiny_http`'s reader lags behind, which itself never
    /// waits; there is at most one head of each connection.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.heads.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.heads)?;
        self.heads.clear();
        self.heads.shrink_to(KEPT_BUFFER);
        Ok(())
    }
}

/// What hangs up when `tiny_http` stops reading.
impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As another process of the network namespace would connect.
    fn stranger(listener: &Socket) -> io::Result<Socket> {
        let stranger = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stranger.set_nonblocking(true).unwrap();
        stranger.connect(&listener.local_addr().unwrap()).map(|()| stranger)
    }

    #[test]
    fn a_stranger_who_was_first_is_noticed() {
        let listener = listen().unwrap();
        let _stranger = stranger(&listener).unwrap();
        let refused = connect_first(&listener).unwrap_err();
        assert!(matches!(refused, LaneError::Stranger), "{refused}");
    }

    #[test]
    fn nobody_gets_in_beside_us() {
        let listener = listen().unwrap();
        let _ours = connect_first(&listener).unwrap();
        assert_eq!(stranger(&listener).unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.shutdown(Shutdown::Read).unwrap();
        assert_eq!(stranger(&listener).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // Ours was there before, and is accepted after.
        assert!(listener.accept().is_ok());
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn heads_come_out_as_requests_in_their_order() {
        let (server, mut lane) = open().unwrap();
        for number in 0..1000 {
            lane.heads.extend_from_slice(format!("GET /{number} HTTP/1.1\r\n\r\n").as_bytes());
        }
        lane.flush().unwrap();
        for number in 0..1000 {
            let request = server.recv().unwrap();
            assert_eq!(request.url(), format!("/{number}"));
            drop(request.into_writer());
        }
    }
}
