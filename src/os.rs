//! The only `unsafe` of the program: the C symbols of the door, and the calls to the kernel that
//! it needs and std does not have.
//!
//! **What.** std's `TcpListener::accept`, `TcpStream::read` and `Drop` call the C library's
//! `accept4`, `recv` and `close`. This file defines functions of these names. The linker takes a
//! program's own definition before a library's, so std's code, and `tiny_http`'s above it, calls
//! them instead, as it would call another `malloc`. They ask `door.rs` and otherwise do the raw
//! system call.
//!
//! **Why.** `tiny_http` 0.12 has no limits: a header without end eats all memory, a client that
//! never reads pins a worker, a connection without a descriptor left ends the accept loop, and a
//! huge `Content-Length` aborts the process when the request is dropped, which nothing after its
//! parser can prevent. Here is the one place where limits can be put around it without changing
//! it.
//!
//! **What was tried instead.** A thread that watched the process's own sockets through /proc and
//! `TCP_INFO` and shut the bad ones: it needed an allocator that brakes, could not cap connections
//! in a burst, and could not stop the abort. A proxy in the same process would need a second
//! HTTP server in front of the first, and twice the descriptors and system calls.
//!
//! **What would make it unnecessary.** Limits in `tiny_http`, or a way to hand it connections.
//!
//! **What keeps it honest.** The names are no contract of std's. So the program connects to
//! itself at start and ends when the door did not answer (`door::prove`).
//!
//! Nothing here may unwind: a panic in an `extern "C"` function aborts. Whatever `door.rs` does is
//! caught: it counts as the end of that connection, and accept4 tries again.

#![expect(unsafe_code, reason = "this is the module that the lint leaves it to")]

use std::ffi::{c_int, c_void};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::thread;
use std::time::Duration;

use libc::{sockaddr, socklen_t, ssize_t};

use crate::door;

const AFTER_A_PANIC: Duration = Duration::from_millis(100);

/// Accepts a connection; on a listener of the door's, one that there is room for.
///
/// # Safety
/// As for accept4(2): `address` and `length` are null, or point to as much as they say.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept4(
    listener: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise on `length`.
    let room = unsafe { length.as_ref() }.copied();
    let mut kernel = || {
        // SAFETY: the caller's promise on `length`.
        if let (Some(length), Some(room)) = (unsafe { length.as_mut() }, room) {
            *length = room;
        }
        // SAFETY: the arguments are the caller's own, who promised as much as the kernel asks.
        let accepted =
            unsafe { libc::syscall(libc::SYS_accept4, listener, address, length, flags) };
        c_int::try_from(accepted)
            .ok()
            .filter(|descriptor| *descriptor >= 0)
            .ok_or_else(io::Error::last_os_error)
    };
    let accepted = panic::catch_unwind(AssertUnwindSafe(|| door::accept(listener, &mut kernel)));
    match accepted {
        Ok(Ok(descriptor)) => descriptor,
        Ok(Err(error)) => fail(error.raw_os_error().unwrap_or(libc::EINVAL)),
        Err(_) => {
            // A mistake of ours, which is logged. std calls again, where another error would end
            // tiny_http's accept loop; not at once, in case it is there to stay.
            thread::sleep(AFTER_A_PANIC);
            fail(libc::EINTR)
        }
    }
}

/// Receives; from a connection of the door's, a checked head.
///
/// # Safety
/// As for recv(2): `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recv(
    descriptor: c_int,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
) -> ssize_t {
    if flags == 0 && length > 0 && !buffer.is_null() {
        let handed = panic::catch_unwind(AssertUnwindSafe(|| {
            door::receive(descriptor, |head| {
                let count = head.len().min(length);
                // SAFETY: `count` is within both `head` and the buffer, which the caller promised
                // to be `length` bytes long; a head of ours cannot overlap it.
                unsafe { ptr::copy_nonoverlapping(head.as_ptr(), buffer.cast(), count) };
                count
            })
        }));
        match handed {
            Ok(None) => {}
            Ok(Some(count)) => return ssize_t::try_from(count).unwrap_or(0),
            Err(_) => return 0,
        }
    }
    // SAFETY: the arguments are the caller's own, who promised as much as the kernel asks.
    unsafe { raw_receive(descriptor, buffer, length, flags) }
}

/// Closes, and lets the door forget the descriptor before another can get its number.
///
/// # Safety
/// As for close(2): nobody else uses the descriptor any more.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    // A panic could leave the door with a connection too many; it is a mistake either way.
    let _ = panic::catch_unwind(|| door::forget(descriptor));
    raw_close(descriptor)
}

fn raw_close(descriptor: RawFd) -> c_int {
    // SAFETY: takes no pointer; that nobody uses the descriptor is the caller's promise.
    let closed = unsafe { libc::syscall(libc::SYS_close, descriptor) };
    c_int::try_from(closed).unwrap_or(-1)
}

/// # Safety
/// `buffer` points to `length` bytes that may be written.
unsafe fn raw_receive(fd: RawFd, buffer: *mut c_void, length: usize, flags: c_int) -> ssize_t {
    let none = ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise on `buffer`; no address is asked for.
    let count = unsafe { libc::syscall(libc::SYS_recvfrom, fd, buffer, length, flags, none, none) };
    ssize_t::try_from(count).unwrap_or(-1)
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is this thread's own errno, which lives as long as the thread.
    unsafe { *place = errno };
    -1
}

/// The result of a call that says -1 for an error.
fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Receives what there is into `buffer`; waits for something (for as long as
/// [`set_receive_timeout`] said) only when `wait`.
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the pointer and the length are of one slice.
    let count = unsafe { raw_receive(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count).map_err(|_negative| io::Error::last_os_error())
}

/// Sends as much of `bytes` as goes without waiting.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are of one slice.
    let _ = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
}

/// Waits until `fd` can be read or accepted from, at most `timeout`; says whether it can.
pub(crate) fn wait_readable(fd: RawFd, timeout: Option<Duration>) -> bool {
    let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // Rounded up: a wait of nothing would spin.
    let timeout = timeout
        .map_or(-1, |timeout| c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(-1));
    // SAFETY: one entry, which lives through the call.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, timeout) };
    ready > 0
}

/// Ends both directions (`whole`) or only ours; who waits for data on it is woken.
pub(crate) fn shutdown(fd: RawFd, how: std::net::Shutdown) {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: takes no pointer.
    let _ = unsafe { libc::shutdown(fd, how) };
}

/// Bytes that were written and that the peer has not confirmed: tcp(7), SIOCOUTQ.
pub(crate) fn unconfirmed(fd: RawFd) -> usize {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one int, to where one is.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

/// The number by which the kernel knows the socket, whatever the descriptor.
pub(crate) fn inode(fd: RawFd) -> Option<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes one struct stat, to where one fits.
    let result = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: fstat succeeded, and so has written all of it.
    (result == 0).then(|| unsafe { stat.assume_init() }.st_ino)
}

/// The client's address; none when the connection has been reset.
pub(crate) fn peer(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: the descriptor is open for as long as the door holds its lock or its thread reads
    // from it, and this call ends within that.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    socket2::SockRef::from(&borrowed).peer_addr().ok()?.as_socket()
}

/// Bounds the wait of [`receive`].
pub(crate) fn set_receive_timeout(fd: RawFd, timeout: Duration) -> io::Result<()> {
    // SAFETY: as in `peer`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    socket2::SockRef::from(&borrowed).set_read_timeout(Some(timeout))
}

/// From now on a close discards what is unsent instead of keeping it for the client.
pub(crate) fn discard_on_close(fd: RawFd) {
    // SAFETY: as in `peer`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    // It only fails for what is no socket.
    let _ = socket2::SockRef::from(&borrowed).set_linger(Some(Duration::ZERO));
}

/// Whether another descriptor can be had.
pub(crate) fn has_spare_descriptor(fd: RawFd) -> bool {
    // SAFETY: takes no pointer.
    let spare = checked(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) });
    spare.map(raw_close).is_ok()
}

/// Closes a descriptor that was accepted and given to nobody.
pub(crate) fn discard(fd: RawFd) {
    raw_close(fd);
}

/// How many descriptors this process may have: getrlimit(2), `RLIMIT_NOFILE`.
pub(crate) fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one struct rlimit, to where one is.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result < 0 { 0 } else { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn sockets_that_are_none_of_the_doors_work_as_ever() {
        let (mut client, mut server) = pair();
        client.write_all(b"bytes\n\n\0").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"bytes\n\n\0");
    }

    #[test]
    fn a_socket_has_one_inode_under_all_its_descriptors() {
        let (client, server) = pair();
        let copy = client.try_clone().unwrap();
        assert_eq!(inode(client.as_raw_fd()), inode(copy.as_raw_fd()));
        assert_ne!(inode(client.as_raw_fd()), inode(server.as_raw_fd()));
    }

    #[test]
    fn what_a_client_does_not_take_is_counted_as_unconfirmed() {
        let (client, server) = pair();
        server.set_nonblocking(true).unwrap();
        while (&server).write(&[0; 65536]).is_ok() {}
        assert!(unconfirmed(server.as_raw_fd()) > 0);
        drop(client);
    }
}
