//! The copies of both documents, shared by workers, admin listener and refresher.
//!
//! Requests see what is held, and wait for the refresher's round only while nothing is. So any
//! number of cold clients cost one fetch, a client that goes away cancels nothing, and a slow
//! upstream never slows down a request while a copy is held.
//!
//! The policy is in `state.rs`, which is pure; here is the lock around it.
//!
//! Invariant: under the lock there is one call of a method of [`State`] and nothing else, so no
//! I/O, no logging and no serialising.

mod state;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub(crate) use state::{Copy, Lifetimes, Snapshot, Unavailable};
use state::{Health, State, Waiting};

use crate::documents::Kind;
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::locks::{lock, wait_while};
use crate::reason::Reason;

pub(crate) struct Cache {
    state: Mutex<State>,
    /// A copy was stored, a round ended, or a round was requested.
    changed: Condvar,
}

impl Cache {
    /// An empty cache, for which the first round counts as begun: requests may wait for it.
    ///
    /// `workers` is the number of threads that may call [`obtain`](Self::obtain).
    pub(crate) fn new(lifetimes: Lifetimes, workers: usize) -> Self {
        let state = State::new(lifetimes, workers, Instant::now());
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    // For requests.

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.state).snapshot()
    }

    /// The copy of `kind` in `snapshot`; without one, that of the round which has begun, for which
    /// it waits. `before_waiting` is called before. All workers but one may wait at one time.
    pub(crate) fn obtain(
        &self,
        kind: Kind,
        snapshot: &Snapshot,
        before_waiting: &mut dyn FnMut(),
    ) -> Result<Copy, Unavailable> {
        if let Some(copy) = snapshot.copy(kind, Instant::now()) {
            return Ok(copy);
        }
        let waiting = lock(&self.state).begin_waiting(kind, Instant::now());
        let ticket = match waiting {
            Waiting::For(ticket) => ticket,
            Waiting::Vain(outcome) => return outcome,
        };
        before_waiting();
        let is_early = |state: &mut State| state.must_wait(&ticket, kind, Instant::now());
        wait_while(&self.changed, lock(&self.state), is_early).end_waiting(
            ticket,
            kind,
            Instant::now(),
        )
    }

    // For probes.

    /// Whether both documents can be served.
    pub(crate) fn ready(&self) -> Result<(), Reason> {
        lock(&self.state).ready(Instant::now())
    }

    /// Whether both documents were fetched and valid in the last round. When that is not recent, it
    /// requests another round, whose outcome a later call will see.
    pub(crate) fn healthy(&self) -> Result<(), Reason> {
        let Health { state, requests_round } = lock(&self.state).health(Instant::now());
        if requests_round {
            self.changed.notify_all();
        }
        state
    }

    // For the refresher, the one thread that changes copies.

    /// Returns when the next round is due or was requested.
    pub(crate) fn await_round(&self) {
        let left = lock(&self.state).until_next_round(Instant::now());
        drop(
            self.changed.wait_timeout_while(lock(&self.state), left, |state| !state.is_requested()),
        );
    }

    pub(crate) fn begin_round(&self) {
        lock(&self.state).begin_round();
    }

    /// Stores a copy that upstream confirmed at `confirmed`; says whether its bytes differ from
    /// those before. `paths` replace the known ones if there are any.
    pub(crate) fn store(
        &self,
        kind: Kind,
        representation: Representation,
        confirmed: Instant,
        paths: Option<Paths>,
    ) -> bool {
        let before = self.snapshot();
        let (after, is_changed) = before.with(kind, representation, confirmed, paths);
        lock(&self.state).store(kind, after);
        self.changed.notify_all();
        is_changed
    }

    pub(crate) fn fail(&self, kind: Kind, reason: Reason) {
        lock(&self.state).fail(kind, reason);
    }

    /// Ends the round that began at `begin`; the next one is due `pause` after that. It counts from
    /// the begin, so that the time which a hanging upstream takes is not added to a copy's age.
    pub(crate) fn end_round(&self, begin: Instant, pause: Duration) {
        lock(&self.state).end_round(Instant::now(), begin + pause);
        self.changed.notify_all();
    }
}
