//! Messages to the front: answers from workers, and requests from `lifecycle`.
//!
//! Workers know a connection by its [`Id`] only, and have no socket. The front is woken only when it
//! may be waiting. The messages and that flag are under one lock, so no wake is lost: whoever posts
//! after [`Inbox::collect`] sees the flag.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

use super::counts::Report;
use crate::http::answer::Bytes;
use crate::locks::lock;

/// Names one connection for the life of the program: its slot, and a generation that tells it from
/// earlier connections in this slot. The 32 bits of that repeat after four billion connections.
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

pub(crate) enum Message {
    /// The whole answer to the request that this connection sent last.
    Answer { to: Id, bytes: Bytes, last: Last },
    /// There will be no answer: the worker panicked.
    NoAnswer { to: Id },
    /// Accept the connections that are queued in the kernel, then no more.
    StopAccepting,
    /// Report the state of the front.
    Report(Sender<Report>),
}

/// Whether an answer is the last one on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    front_waits: bool,
}

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

    /// Moves the messages so far into `messages`, which must be empty. When there are none, the front
    /// counts as waiting from now on, and the next message wakes it.
    pub(super) fn collect(&self, messages: &mut Vec<Message>) {
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.messages, messages);
        state.front_waits = messages.is_empty();
    }
}

/// What becomes readable when the front has to wake up.
impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
