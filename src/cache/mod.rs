//! The copies of both documents, shared by the workers and the refresher.
//!
//! A request gets the copy that is held. If none is held it waits for the round in progress. A
//! request for the key set whose copy was confirmed longer ago than `REVALIDATE_SECONDS` asks for a
//! round, and waits for it a fifth of a second at most: so the first relying party that looks for a
//! new key finds it. Any number of requests cost one fetch, a client that disconnects cancels
//! nothing, and a slow upstream delays nobody who can be served.
//!
//! The policy is in `state/`, which is pure; this file is the lock around it.
//!
//! Invariant: under the lock there is one call of a method of [`State`] and nothing else. So there
//! is no I/O, logging or serialising.

mod state;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use state::{Asked, Health, State, Waiting};
pub(crate) use state::{Confirmed, FoundCopy, Lifetimes, Round, Snapshot, Unavailable, View};

use crate::documents::Kind;
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::locks::{lock, wait_while_within};
use crate::observed::Observed;
use crate::reason::Reason;

pub(crate) struct Cache {
    state: Mutex<State>,
    /// A copy was stored, a round ended, or a round was requested.
    changed: Condvar,
}

impl Cache {
    /// An empty cache. Its first round counts as begun, so that requests wait for it.
    ///
    /// `workers` is the number of threads that call [`obtain`](Self::obtain): all but one may wait.
    /// `paths` are those that are known before.
    pub(crate) fn new(lifetimes: Lifetimes, workers: usize, paths: Paths) -> Self {
        let state = State::new(lifetimes, workers, paths, Instant::now());
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    // For requests.

    /// What requests see now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.state).snapshot()
    }

    /// The copy of `kind` in `snapshot`. If it has none, or one of the key set that is to be
    /// confirmed, may wait for a round, and calls `before_waiting` first. An error if no copy can
    /// be served after that.
    pub(crate) fn obtain(
        &self,
        kind: Kind,
        snapshot: &Snapshot,
        before_waiting: &mut dyn FnMut(),
    ) -> Result<FoundCopy, Unavailable> {
        if let Some(copy) = snapshot.copy(kind, Instant::now())
            && snapshot.suffices(kind, &copy)
        {
            return Ok(copy);
        }
        let Asked { waiting, requests_round } = lock(&self.state).ask(kind, Instant::now());
        if requests_round {
            self.changed.notify_all();
        }
        let ticket = match waiting {
            Waiting::For(ticket) => ticket,
            Waiting::Vain(outcome) => return outcome,
        };
        before_waiting();
        let must_wait = |state: &mut State| state.must_wait(&ticket, kind, Instant::now());
        let time = ticket.patience(Instant::now());
        wait_while_within(time, &self.changed, lock(&self.state), must_wait).end_waiting(
            ticket,
            kind,
            Instant::now(),
        )
    }

    // For probes and the pages of the admin listener.

    /// What is held and what was observed, at one moment.
    pub(crate) fn view(&self) -> View {
        lock(&self.state).view()
    }

    /// Whether both documents can be served.
    pub(crate) fn ready(&self) -> Result<(), Reason> {
        lock(&self.state).ready(Instant::now())
    }

    /// Whether the last fetch of each document succeeded and nothing else is wrong. If the last
    /// round is too old, requests another one, whose outcome a later call will see.
    pub(crate) fn healthy(&self) -> Result<(), Reason> {
        let Health { state, requests_round } = lock(&self.state).health(Instant::now());
        if requests_round {
            self.changed.notify_all();
        }
        state
    }

    // For the refresher, the one thread that changes copies.

    /// Begins the first round, and later waits until one is due or was requested and begins it.
    pub(crate) fn await_round(&self) -> Round {
        let left = lock(&self.state).until_next_round(Instant::now());
        let must_wait = |state: &mut State| !state.is_requested();
        wait_while_within(Some(left), &self.changed, lock(&self.state), must_wait)
            .begin_round(Instant::now())
    }

    /// Stores a copy that upstream has confirmed; returns whether its bytes differ from
    /// the previous ones. `paths`, if given, replace the known paths.
    pub(crate) fn store(
        &self,
        kind: Kind,
        representation: Representation,
        confirmed: Confirmed,
        paths: Option<Paths>,
    ) -> bool {
        let before = self.snapshot();
        let (after, is_changed) = before.with(kind, representation, confirmed, paths);
        lock(&self.state).store(kind, after);
        self.changed.notify_all();
        is_changed
    }

    /// The fetch of `kind` failed; its copy stays.
    pub(crate) fn fail(&self, kind: Kind, reason: Reason) {
        lock(&self.state).fail(kind, reason);
    }

    /// What was observed in the round that ends.
    pub(crate) fn set_observed(&self, observed: Arc<Observed>) {
        lock(&self.state).set_observed(observed);
    }

    /// Why `kind` cannot be served; `None` when it can be.
    pub(crate) fn missing(&self, kind: Kind) -> Option<Reason> {
        lock(&self.state).missing(kind, Instant::now())
    }

    /// Ends the complete round that began at `started`. The next one is due `pause` after `started`,
    /// so that a slow upstream does not add to a copy's age.
    pub(crate) fn end_round(&self, started: Instant, pause: Duration) {
        lock(&self.state).end_round(Instant::now(), started + pause);
        self.changed.notify_all();
    }

    /// Ends a round for the key set alone. After one that failed the next round is due at `retry` at the
    /// latest.
    pub(crate) fn end_keys_round(&self, retry: Option<Instant>) {
        lock(&self.state).end_keys_round(Instant::now(), retry);
        self.changed.notify_all();
    }
}
