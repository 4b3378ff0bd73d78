//! Pure: how long a connection may take, and how many bytes all of them may hold.
//!
//! They are not settings: they follow from what clients and networks need, and from a memory limit
//! of 64 MiB.

use std::time::Duration;

/// Between two requests: nginx's `keepalive_timeout` is 75 s.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// For a head, from its first byte: a few round trips on the slowest path.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// From a complete head to its answer. The longest wait is for two fetches from upstream, each of
/// which may take `UPSTREAM_TIMEOUT_SECONDS`, at most 60 s.
pub(super) const ANSWER: Duration = Duration::from_secs(150);
/// Between two reads by a client whose answer does not fit the send buffer: nginx's `send_timeout`
/// is 60 s, for answers of any length.
pub(super) const UNREAD: Duration = Duration::from_secs(15);
/// After the last answer, until the client has read it and closes.
pub(super) const CLOSING: Duration = Duration::from_secs(16);
/// After a refusal, so that bytes which are still arriving do not reset the connection before the
/// client has read the answer: RFC 9112 §9.6.
pub(super) const REFUSED: Duration = Duration::from_millis(300);

/// A new connection is not evicted within this time after it was accepted or answered: its request,
/// or the answer, may be on its way. The longer it is, the fewer connections are accepted in a
/// second while the limit is reached.
pub(super) const NEW_GRACE: Duration = Duration::from_millis(50);
/// The same for a keep-alive connection.
pub(super) const KEEP_ALIVE_GRACE: Duration = Duration::from_millis(120);
/// How long after its last request a keep-alive connection has precedence over new ones.
pub(super) const KEEP_ALIVE_PREFERRED: Duration = Duration::from_secs(5);
/// How long a connection waits at the listener until another one is past its grace. After that, one
/// within its grace is evicted.
pub(super) const PATIENCE: Duration = Duration::from_millis(60);
/// Once [`PATIENCE`] has run out, later connections skip it for this long: with hundreds queued,
/// 60 ms each would add up to minutes.
pub(super) const IMPATIENCE: Duration = Duration::from_secs(1);
/// Even then, a connection that has not sent a request is not evicted within this time after it was
/// accepted: in a burst, each would be evicted by the next before its request is read.
pub(super) const LEAST_GRACE: Duration = Duration::from_millis(15);
/// How soon [`Admission::room`](super::Admission::room) is asked again while every connection is
/// being answered.
pub(super) const RECHECK: Duration = Duration::from_millis(10);
/// How long a connection that has not sent anything delays the end of the program.
pub(super) const ARRIVING: Duration = Duration::from_millis(500);

/// Bytes of request heads, partial or pipelined, that all connections together may hold. Above
/// that, a head of more than [`SMALL_HEAD`] is refused. A well-behaved client sends less, and at
/// once.
pub(super) const HELD_BYTES: usize = 3 << 20;
/// The length of a head that is accepted even above [`HELD_BYTES`].
pub(super) const SMALL_HEAD: usize = 4 << 10;
/// The estimate of unread bytes, of all clients together, above which they are measured. They are
/// mostly in the kernel's memory, which counts against the container's limit.
pub(super) const UNREAD_BYTES: usize = 8 << 20;
/// Connections are closed when more than this is measured. It is less than [`UNREAD_BYTES`], so
/// that the next answer does not cause another measurement.
pub(super) const UNREAD_MEASURED: usize = UNREAD_BYTES / 8 * 7;
/// Low-water mark: connections are closed, longest idle first, until no more than this is unread.
pub(super) const UNREAD_LEFT: usize = UNREAD_BYTES / 4 * 3;
/// The most that one connection can leave unread: its send buffer, which the kernel doubles, and
/// one answer.
pub(super) const UNREAD_OF_ONE: usize = 256 << 10;
