//! What is held and how fresh it is, and the one thread that refreshes it.
//!
//! Only the refresher asks upstream: requests see what is held, and wait for the refresher's
//! round only when nothing is. So any number of cold clients cost one fetch, a client that goes
//! away cancels nothing, and upstream's slowness never reaches a request while a copy is held.
//! What requests see is one value, [`Shown`], replaced as a whole: under the lock there is no
//! I/O, no logging and no serializing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::documents::Kind;
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::reason::Reason;

/// How old the last round may be before `/healthz` asks for another.
const HEALTH_AGE: Duration = Duration::from_secs(5);
/// How long copies live.
#[derive(Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) cache_ttl: Duration,
    /// At least `cache_ttl`.
    pub(crate) max_stale: Duration,
}

/// A document and when upstream last said that it is right.
#[derive(Clone)]
pub(crate) struct Held {
    document: Arc<Representation>,
    confirmed: Instant,
}

/// What requests see.
#[derive(Default)]
pub(crate) struct Shown {
    discovery: Option<Held>,
    jwks: Option<Held>,
    pub(crate) paths: Arc<Paths>,
}

impl Shown {
    fn held(&self, kind: Kind) -> Option<&Held> {
        match kind {
            Kind::Discovery => self.discovery.as_ref(),
            Kind::Jwks => self.jwks.as_ref(),
        }
    }
}

/// A document to answer with.
pub(crate) struct Copy {
    pub(crate) document: Arc<Representation>,
    /// Since upstream last confirmed it.
    pub(crate) age: Duration,
    /// Whether it was there without waiting.
    pub(crate) cache_hit: bool,
}

/// A document that cannot be served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unavailable {
    pub(crate) why: Reason,
    /// When another request may fare better.
    pub(crate) retry_after: Duration,
}

/// What is held. Shared by workers, admin listener and refresher.
pub(crate) struct Cache {
    state: Mutex<State>,
    /// A document was stored, a round ended, or a round is wanted.
    changed: Condvar,
    pub(crate) lifetimes: Lifetimes,
    /// How many requests may wait for a round at one time: all workers but one.
    most_waiting: usize,
}

struct State {
    shown: Arc<Shown>,
    /// Why the last try of each document failed.
    discovery_failed: Option<Reason>,
    jwks_failed: Option<Reason>,
    /// A round is under way.
    fetching: bool,
    /// Rounds that have ended.
    rounds: u64,
    /// Requests that wait for it.
    waiting: usize,
    last_round: Option<Instant>,
    next_round: Instant,
    /// `/healthz` wants a round before that.
    wanted: bool,
}

impl State {
    fn failed(&mut self, kind: Kind) -> &mut Option<Reason> {
        match kind {
            Kind::Discovery => &mut self.discovery_failed,
            Kind::Jwks => &mut self.jwks_failed,
        }
    }
}

impl Cache {
    /// An empty cache, which counts the first round as under way: requests may wait for it.
    pub(crate) fn new(lifetimes: Lifetimes, workers: usize) -> Self {
        let state = State {
            shown: Arc::default(),
            discovery_failed: Some(Reason::NotFetchedYet),
            jwks_failed: Some(Reason::NotFetchedYet),
            fetching: true,
            rounds: 0,
            waiting: 0,
            last_round: None,
            next_round: Instant::now(),
            wanted: false,
        };
        let most_waiting = workers.saturating_sub(1);
        Self { state: Mutex::new(state), changed: Condvar::new(), lifetimes, most_waiting }
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.lock().shown)
    }

    /// The copy of `kind` in `shown`, or else one from the round that is under way, for which it
    /// waits; `before_waiting` is called before.
    pub(crate) fn obtain(
        &self,
        kind: Kind,
        shown: &Shown,
        before_waiting: &mut dyn FnMut(),
    ) -> Result<Copy, Unavailable> {
        if let Some(copy) = self.usable(kind, shown, true) {
            return Ok(copy);
        }
        let mut state = self.lock();
        if state.fetching && state.waiting < self.most_waiting {
            state.waiting += 1;
            // For this round and no other: the next may begin before this thread has woken.
            let seen = state.rounds;
            drop(state);
            before_waiting();
            state = self.lock();
            let lacking = |state: &mut State| {
                state.rounds == seen && self.usable(kind, &state.shown, false).is_none()
            };
            state = self.changed.wait_while(state, lacking).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let (shown, failed) = (Arc::clone(&state.shown), *state.failed(kind));
        let retry_after = state.next_round.saturating_duration_since(Instant::now());
        drop(state);
        self.usable(kind, &shown, false)
            .ok_or_else(|| Unavailable { why: self.why_not(kind, &shown, failed), retry_after })
    }

    pub(crate) fn usable(&self, kind: Kind, shown: &Shown, cache_hit: bool) -> Option<Copy> {
        let held = shown.held(kind)?;
        let age = held.confirmed.elapsed();
        (age <= self.lifetimes.max_stale).then(|| Copy {
            document: Arc::clone(&held.document),
            age,
            cache_hit,
        })
    }

    fn why_not(&self, kind: Kind, shown: &Shown, failed: Option<Reason>) -> Reason {
        match shown.held(kind) {
            Some(_) => Reason::TooOld,
            None => failed.unwrap_or(Reason::NotFetchedYet),
        }
    }

    /// Whether both documents can be served.
    pub(crate) fn ready(&self) -> Result<(), Reason> {
        let mut state = self.lock();
        let shown = Arc::clone(&state.shown);
        let failed = [Kind::Discovery, Kind::Jwks].map(|kind| (kind, *state.failed(kind)));
        drop(state);
        for (kind, failed) in failed {
            if self.usable(kind, &shown, true).is_none() {
                return Err(self.why_not(kind, &shown, failed));
            }
        }
        Ok(())
    }

    /// Whether both documents were good in the last round; asks for another when that is old.
    pub(crate) fn healthy(&self) -> Result<(), Reason> {
        let mut state = self.lock();
        let is_old = state.last_round.is_some_and(|at| at.elapsed() > HEALTH_AGE);
        if is_old && !state.fetching && !state.wanted {
            state.wanted = true;
            self.changed.notify_all();
        }
        state.discovery_failed.or(state.jwks_failed).map_or(Ok(()), Err)
    }

    /// Whether a copy of this age counts as stale.
    pub(crate) fn is_stale(&self, age: Duration) -> bool {
        age > self.lifetimes.cache_ttl
    }

    /// No code under this lock can panic half way through a change of the state, so that a
    /// poisoned lock still guards a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin_round(&self) -> Instant {
        let mut state = self.lock();
        state.fetching = true;
        state.wanted = false;
        drop(state);
        Instant::now()
    }

    /// Shows `document`, confirmed at `confirmed`; says whether it differs from the one before.
    pub(crate) fn store(
        &self,
        kind: Kind,
        document: Representation,
        confirmed: Instant,
        paths: Option<Paths>,
    ) -> bool {
        // Only the refresher stores, so nothing changes between these two looks.
        let before = self.shown();
        let same = before.held(kind).filter(|held| held.document.body() == document.body());
        let changed = same.is_none();
        let document = same.map_or_else(|| Arc::new(document), |held| Arc::clone(&held.document));
        let held = Some(Held { document, confirmed });
        let paths = paths.map_or_else(|| Arc::clone(&before.paths), Arc::new);
        let shown = Arc::new(match kind {
            Kind::Discovery => Shown { discovery: held, jwks: before.jwks.clone(), paths },
            Kind::Jwks => Shown { discovery: before.discovery.clone(), jwks: held, paths },
        });
        let mut state = self.lock();
        state.shown = shown;
        *state.failed(kind) = None;
        drop(state);
        self.changed.notify_all();
        changed
    }

    pub(crate) fn fail(&self, kind: Kind, why: Reason) {
        *self.lock().failed(kind) = Some(why);
    }

    /// The next round begins `pause` after `begin`, when this one did: what a hanging upstream
    /// cost must not be added to how stale a copy gets.
    pub(crate) fn end_round(&self, begin: Instant, pause: Duration) {
        let mut state = self.lock();
        state.fetching = false;
        state.rounds += 1;
        state.last_round = Some(Instant::now());
        state.next_round = begin + pause;
        drop(state);
        self.changed.notify_all();
    }

    /// Returns when the next round is due or wanted.
    pub(crate) fn await_round(&self) {
        let state = self.lock();
        let left = state.next_round.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(state, left, |state| !state.wanted));
    }
}
