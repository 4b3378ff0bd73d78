//! The listening socket, and the options that accepted ones inherit from it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};

/// The most connections that the kernel queues until they are accepted; net.core.somaxconn may
/// lower it.
pub(super) const BACKLOG: usize = 1024;
/// The send buffer, in bytes: room for a key set of any usual size. The kernel doubles it, for its
/// own bookkeeping. The front keeps the rest of a longer answer.
const SEND_BUFFER: usize = 64 << 10;
/// The receive buffer, in bytes, which the kernel doubles: most heads are shorter, and a longer one
/// arrives in pieces. By default the kernel lets it grow to megabytes, but the buffers of all
/// connections together must fit into the container's memory limit.
const RECEIVE_BUFFER: usize = 2 << 10;
/// How long sent bytes may stay unacknowledged before the kernel closes the connection: RFC 5482.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);
/// The time without a packet after which the kernel checks whether the client is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(45);

/// Listens on `address`; `None`: on all addresses of IPv6 and IPv4, or of IPv4 alone if the kernel
/// has no IPv6. An error comes with the address that was tried.
pub(super) fn listen(
    address: Option<IpAddr>,
    port: u16,
) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let on = |address: IpAddr| {
        let address = SocketAddr::new(address, port);
        listen_on(address).map_err(|error| (address, error))
    };
    match address {
        Some(address) => on(address),
        None => on(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| {
            if has_no_ipv6(&error.1) { on(Ipv4Addr::UNSPECIFIED.into()) } else { Err(error) }
        }),
    }
}

/// EAFNOSUPPORT and EADDRNOTAVAIL: the kernel has no IPv6, or it is switched off.
fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` means IPv4 as well, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
