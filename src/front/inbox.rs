//! What others leave for the front: answers of workers, and requests of main.
//!
//! Workers know a connection by its [`Id`] only; no socket is theirs. The front is woken only when
//! it may be asleep. The messages and that flag are under one lock, so no wake is lost: a message
//! that comes after [`Inbox::collect`] sees the flag.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

use super::Report;
use crate::http::reply::Bytes;

/// Names one connection for the life of the program: its slot, and which of the connections that
/// have had this slot it is. 32 bits of that come round after four billion connections in one slot.
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
    /// There will be none: the worker panicked.
    NoAnswer { to: Id },
    /// Accept what waits, then no more.
    StopAccepting,
    /// Say how things stand.
    Report(Sender<Report>),
}

/// Whether an answer says that it is the last on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    front_sleeps: bool,
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

    /// Leaves all of `messages` for the front.
    pub(crate) fn post(&self, messages: &mut Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.messages.append(messages);
        let wake = std::mem::take(&mut state.front_sleeps);
        drop(state);
        if wake {
            // It fails only when 2^64 wakes have not been read: then the front is awake.
            let _ = io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Swaps the messages so far into `messages`, which must be empty. When there are none the
    /// front is taken to sleep from now on, and the next message wakes it.
    pub(super) fn collect(&self, messages: &mut Vec<Message>) {
        let mut state = self.lock();
        std::mem::swap(&mut state.messages, messages);
        state.front_sleeps = messages.is_empty();
    }

    /// A panic cannot happen under the lock: whoever finds it poisoned finds whole values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes readable when the front has to wake.
impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
