//! Messages to the front: answers from workers, and requests from `lifecycle`.
//!
//! Workers know a connection only by its [`Id`], and have no socket. The front is woken only when
//! it may be waiting. The messages and the flag for that are under one lock, so no wake-up is lost:
//! a thread that posts after [`Inbox::collect`] sees the flag.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

use super::counts::Report;
use crate::http::answer::Bytes;
use crate::locks::lock;

/// Identifies a connection: its slot, and a generation of 32 bits that distinguishes it from
/// earlier connections in that slot. It repeats only after four billion connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(u64);

impl Id {
    /// `None` for a slot that has more than 32 bits.
    pub(super) fn new(slot: usize, generation: u32) -> Option<Self> {
        Some(Self(u64::from(generation) << 32 | u64::from(u32::try_from(slot).ok()?)))
    }

    pub(super) const fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }

    pub(super) fn slot(self) -> usize {
        usize::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
    }

    /// From the value of the field [`head::CLIENT`](super::head::CLIENT).
    pub(crate) fn of_client(value: &str) -> Option<Self> {
        value.split(' ').next()?.parse().ok().map(Self)
    }
}

/// A message to the front.
pub(crate) enum Message {
    /// The complete answer to the last request of this connection.
    Answer { to: Id, bytes: Bytes, after: After },
    /// There will be no answer: the worker panicked.
    NoAnswer { to: Id },
    /// Accept the connections that are queued in the kernel, then no more.
    StopAccepting,
    /// Report the state of the front.
    Report(Sender<Report>),
}

/// What happens to a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The answer is the last one.
    Close,
    /// Another request may follow.
    KeepAlive,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    front_waits: bool,
}

/// The messages for one front. Any thread may post; only the front collects.
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: OwnedFd,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), wake })
    }

    /// Adds all of `messages` and leaves it empty.
    pub(crate) fn post(&self, messages: &mut Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        state.messages.append(messages);
        let wake = std::mem::take(&mut state.front_waits);
        drop(state);
        if wake {
            // It fails only when 2^64 wakes are unread, and then the front is awake.
            let _ = io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Moves the messages so far into `messages`, which must be empty. If there are none, the front
    /// counts as waiting from now on, and the next message wakes it up.
    pub(super) fn collect(&self, messages: &mut Vec<Message>) {
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.messages, messages);
        state.front_waits = messages.is_empty();
    }
}

/// The descriptor that becomes readable when the front has to wake up.
impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
