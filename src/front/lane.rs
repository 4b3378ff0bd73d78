//! The lane: the one way to `tiny_http`, which serves a private Unix socket and nothing else.
//!
//! Request heads go one way. Nothing comes back: workers answer through the inbox. No other process
//! can use the lane: the listening socket has room for one connection, and if that is not ours, the
//! program does not start. The socket is shut down before `tiny_http` sees it.
//!
//! An abstract Unix name has no permissions, so any process in the network namespace could connect
//! between listen(2) and shutdown(2). With a backlog of 0 the kernel queues one connection
//! (unix(7), listen(2)), and a second one gets EAGAIN. If that is ours, another process was first.
//! The kernel chooses the name (autobind), so that it is unique in the network namespace.
//!
//! `tiny_http`'s accept loop ends with an error after that one connection, because its listener is
//! shut down. Its `Server` is never dropped: `Drop` panics on a listener without a path.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tiny_http::Server;

/// How long `tiny_http` may take to read the first head, which includes the start of five threads.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The path of the first head.
const PROBE: &str = "/lane";
/// From this length, in bytes, the heads are written before the end of a turn. It is also the most
/// capacity that the buffer keeps between two turns.
const KEPT_BUFFER: usize = 64 << 10;

/// Why the lane could not be opened.
#[derive(Debug)]
pub(crate) enum LaneError {
    Socket(io::Error),
    /// Another process connected first.
    OtherProcess,
    Server(io::Error),
    /// The first head did not come out at the other end.
    NoHead,
}

impl fmt::Display for LaneError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(out, "cannot open a private Unix socket: {error}"),
            Self::OtherProcess => out.write_str(
                "another process in this network namespace connected first to the private Unix \
                 socket, as only an attacker would: find it, stop it, and start again",
            ),
            Self::Server(error) => write!(out, "cannot start tiny_http: {error}"),
            Self::NoHead => write!(out, "tiny_http read no request within {PROBE_TIMEOUT:?}"),
        }
    }
}

/// The front's end of the private connection to `tiny_http`.
pub(super) struct Lane {
    stream: UnixStream,
    /// Heads that are not yet written.
    pub(super) heads: Vec<u8>,
}

/// Starts `tiny_http` and returns the lane to it, after a first head has gone through.
pub(super) fn open() -> Result<(&'static Server, Lane), LaneError> {
    let listener = listen().map_err(LaneError::Socket)?;
    let stream = connect_first(&listener)?;
    listener.shutdown(Shutdown::Read).map_err(LaneError::Socket)?;
    let listener = UnixListener::from(OwnedFd::from(listener));
    let server = Server::from_listener(listener, None)
        .map_err(|error| LaneError::Server(io::Error::other(error)))?;
    let server: &'static Server = Box::leak(Box::new(server));
    prove(server, &stream)?;
    // If a panic drops a request, tiny_http tries to answer it: now that write fails.
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

/// Connects to `listener`; an error if another process has connected before.
fn connect_first(listener: &Socket) -> Result<UnixStream, LaneError> {
    let connect = || {
        let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Otherwise it would wait until the other process's connection is accepted.
        stream.set_nonblocking(true)?;
        stream.connect(&listener.local_addr()?)?;
        stream.set_nonblocking(false)?;
        Ok(UnixStream::from(OwnedFd::from(stream)))
    };
    connect().map_err(|error: io::Error| {
        let is_full = error.kind() == ErrorKind::WouldBlock;
        if is_full { LaneError::OtherProcess } else { LaneError::Socket(error) }
    })
}

/// Sends one head, and waits until `tiny_http` has returned it and its accept loop has ended.
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
            // EINVAL: accept(2) on a listener that is shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => shut = true,
            Err(error) => return Err(LaneError::Server(error)),
        }
    }
    Ok(())
}

impl Lane {
    /// Writes the heads so far if they are long: all heads of a turn could need much memory.
    pub(super) fn flush_if_long(&mut self) -> io::Result<()> {
        if self.heads.len() < KEPT_BUFFER { Ok(()) } else { self.flush() }
    }

    /// Writes the heads so far. It waits while `tiny_http`'s reader lags behind. That is short: the
    /// reader itself never waits, and there is at most one head per connection.
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

/// The descriptor, which reports a hang-up when `tiny_http` stops reading.
impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As another process of the network namespace would connect.
    fn other_process(listener: &Socket) -> io::Result<Socket> {
        let other = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        other.set_nonblocking(true).unwrap();
        other.connect(&listener.local_addr().unwrap()).map(|()| other)
    }

    #[test]
    fn another_process_that_connected_first_is_noticed() {
        let listener = listen().unwrap();
        let _other = other_process(&listener).unwrap();
        let refused = connect_first(&listener).unwrap_err();
        assert!(matches!(refused, LaneError::OtherProcess), "{refused}");
    }

    #[test]
    fn no_other_process_can_connect() {
        let listener = listen().unwrap();
        let _ours = connect_first(&listener).unwrap();
        assert_eq!(other_process(&listener).unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.shutdown(Shutdown::Read).unwrap();
        assert_eq!(other_process(&listener).unwrap_err().kind(), ErrorKind::ConnectionRefused);
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
