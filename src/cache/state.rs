//! Pure: what is held, how fresh it is, and which requests wait for which round.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::documents::Kind;
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::reason::Reason;

/// The age of the last round above which `/healthz` requests another one.
const HEALTH_AGE: Duration = Duration::from_secs(5);

/// How long copies live.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lifetimes {
    /// The age above which a copy counts as stale.
    pub(crate) cache_ttl: Duration,
    /// The age up to which a copy is served; at least `cache_ttl`.
    pub(crate) max_stale: Duration,
}

/// A document and when upstream last confirmed it.
#[derive(Clone)]
struct Held {
    representation: Arc<Representation>,
    confirmed: Instant,
}

/// Everything that requests see. It never changes: a new one replaces it.
#[derive(Default)]
pub(crate) struct Snapshot {
    lifetimes: Lifetimes,
    discovery: Option<Held>,
    jwks: Option<Held>,
    pub(crate) paths: Arc<Paths>,
}

/// A copy to serve.
pub(crate) struct FoundCopy {
    pub(crate) representation: Arc<Representation>,
    /// Since upstream last confirmed it.
    pub(crate) age: Duration,
    /// Older than `CACHE_TTL_SECONDS`.
    pub(crate) is_stale: bool,
    /// It was held, so that the request did not wait.
    pub(crate) is_hit: bool,
}

impl Snapshot {
    /// The copy of `kind`, unless it is too old to be served.
    pub(crate) fn copy(&self, kind: Kind, now: Instant) -> Option<FoundCopy> {
        let held = self.held(kind)?;
        let age = now.saturating_duration_since(held.confirmed);
        (age <= self.lifetimes.max_stale).then(|| FoundCopy {
            representation: Arc::clone(&held.representation),
            age,
            is_stale: age > self.lifetimes.cache_ttl,
            is_hit: true,
        })
    }

    /// This snapshot with another copy of `kind`, and whether the copy's bytes differ from before.
    pub(super) fn with(
        &self,
        kind: Kind,
        representation: Representation,
        confirmed: Instant,
        paths: Option<Paths>,
    ) -> (Arc<Self>, bool) {
        let same = self
            .held(kind)
            .filter(|held| held.representation.body() == representation.body())
            .map(|held| Arc::clone(&held.representation));
        let is_changed = same.is_none();
        let representation = same.unwrap_or_else(|| Arc::new(representation));
        let held = Some(Held { representation, confirmed });
        let (discovery, jwks) = match kind {
            Kind::Discovery => (held, self.jwks.clone()),
            Kind::Jwks => (self.discovery.clone(), held),
        };
        let paths = paths.map_or_else(|| Arc::clone(&self.paths), Arc::new);
        (Arc::new(Self { lifetimes: self.lifetimes, discovery, jwks, paths }), is_changed)
    }

    const fn held(&self, kind: Kind) -> Option<&Held> {
        match kind {
            Kind::Discovery => self.discovery.as_ref(),
            Kind::Jwks => self.jwks.as_ref(),
        }
    }
}

/// A document that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    pub(crate) reason: Reason,
    /// Until the next round.
    pub(crate) retry_after: Duration,
}

/// The right to wait for one round and no other: the next one may begin before the waiting thread
/// has woken up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    round: u64,
}

/// Whether a request may wait.
pub(super) enum Waiting {
    For(Ticket),
    /// It may not; this is what it gets.
    Vain(Result<FoundCopy, Unavailable>),
}

/// What `/healthz` finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether no document failed when it was last fetched.
    pub(super) state: Result<(), Reason>,
    pub(super) requests_round: bool,
}

/// What the refresher is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresher {
    Fetching,
    Waiting,
    /// `/healthz` wants a round before the next one is due.
    Requested,
}

pub(super) struct State {
    snapshot: Arc<Snapshot>,
    /// Why the last fetch of each document failed; `None` when it did not.
    discovery_failed: Option<Reason>,
    jwks_failed: Option<Reason>,
    refresher: Refresher,
    /// The number of rounds that have ended.
    rounds: u64,
    /// Requests that wait for a round, and how many may at one time.
    waiting: usize,
    max_waiting: usize,
    /// When the last round ended.
    last_round: Option<Instant>,
    next_round: Instant,
}

impl State {
    pub(super) fn new(lifetimes: Lifetimes, workers: usize, now: Instant) -> Self {
        Self {
            snapshot: Arc::new(Snapshot { lifetimes, ..Snapshot::default() }),
            discovery_failed: Some(Reason::NotFetchedYet),
            jwks_failed: Some(Reason::NotFetchedYet),
            refresher: Refresher::Fetching,
            rounds: 0,
            waiting: 0,
            max_waiting: workers.saturating_sub(1),
            last_round: None,
            next_round: now,
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Lets a request wait for a copy of `kind`, if a round is in progress and fewer requests are
    /// waiting than may.
    pub(super) fn begin_waiting(&mut self, kind: Kind, now: Instant) -> Waiting {
        if self.refresher != Refresher::Fetching || self.waiting >= self.max_waiting {
            return Waiting::Vain(self.copy_or_reason(kind, now));
        }
        self.waiting += 1;
        Waiting::For(Ticket { round: self.rounds })
    }

    /// Whether the round has neither ended nor brought a copy of `kind`.
    pub(super) fn must_wait(&self, ticket: &Ticket, kind: Kind, now: Instant) -> bool {
        self.rounds == ticket.round && self.snapshot.copy(kind, now).is_none()
    }

    /// Gives up the right to wait, and returns the outcome.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
    pub(super) fn end_waiting(
        &mut self,
        ticket: Ticket,
        kind: Kind,
        now: Instant,
    ) -> Result<FoundCopy, Unavailable> {
        let Ticket { .. } = ticket;
        self.waiting -= 1;
        self.copy_or_reason(kind, now).map(|copy| FoundCopy { is_hit: false, ..copy })
    }

    fn copy_or_reason(&self, kind: Kind, now: Instant) -> Result<FoundCopy, Unavailable> {
        self.snapshot.copy(kind, now).ok_or_else(|| Unavailable {
            reason: self.why_not(kind),
            retry_after: self.until_next_round(now),
        })
    }

    /// Why no copy of `kind` can be served, given that none can.
    fn why_not(&self, kind: Kind) -> Reason {
        match self.snapshot.held(kind) {
            Some(_) => Reason::TooOld,
            None => self.failure(kind).unwrap_or(Reason::NotFetchedYet),
        }
    }

    const fn failure(&self, kind: Kind) -> Option<Reason> {
        match kind {
            Kind::Discovery => self.discovery_failed,
            Kind::Jwks => self.jwks_failed,
        }
    }

    const fn failure_mut(&mut self, kind: Kind) -> &mut Option<Reason> {
        match kind {
            Kind::Discovery => &mut self.discovery_failed,
            Kind::Jwks => &mut self.jwks_failed,
        }
    }

    /// Whether a copy of each document can be served; if not, why not.
    pub(super) fn ready(&self, now: Instant) -> Result<(), Reason> {
        for kind in [Kind::Discovery, Kind::Jwks] {
            if self.snapshot.copy(kind, now).is_none() {
                return Err(self.why_not(kind));
            }
        }
        Ok(())
    }

    /// The health for `/healthz`. Requests a round when the last one is too old to tell.
    pub(super) fn health(&mut self, now: Instant) -> Health {
        let is_old = self.last_round.is_some_and(|at| now > at + HEALTH_AGE);
        let requests_round = is_old && self.refresher == Refresher::Waiting;
        if requests_round {
            self.refresher = Refresher::Requested;
        }
        let state = self.discovery_failed.or(self.jwks_failed).map_or(Ok(()), Err);
        Health { state, requests_round }
    }

    pub(super) fn is_requested(&self) -> bool {
        self.refresher == Refresher::Requested
    }

    pub(super) fn until_next_round(&self, now: Instant) -> Duration {
        self.next_round.saturating_duration_since(now)
    }

    pub(super) const fn begin_round(&mut self) {
        self.refresher = Refresher::Fetching;
    }

    /// `snapshot` has a new copy of `kind`, just fetched.
    pub(super) fn store(&mut self, kind: Kind, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        *self.failure_mut(kind) = None;
    }

    pub(super) const fn fail(&mut self, kind: Kind, reason: Reason) {
        *self.failure_mut(kind) = Some(reason);
    }

    pub(super) const fn end_round(&mut self, now: Instant, next_round: Instant) {
        self.refresher = Refresher::Waiting;
        self.rounds += 1;
        self.last_round = Some(now);
        self.next_round = next_round;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// One minute fresh, five minutes served, four workers.
    fn empty(now: Instant) -> State {
        State::new(Lifetimes { cache_ttl: 60 * S, max_stale: 300 * S }, 4, now)
    }

    /// The ticket, or what a request gets that cannot wait.
    fn begin(state: &mut State, now: Instant) -> Result<Ticket, Result<FoundCopy, Unavailable>> {
        match state.begin_waiting(Kind::Jwks, now) {
            Waiting::For(ticket) => Ok(ticket),
            Waiting::Vain(outcome) => Err(outcome),
        }
    }

    /// As the refresher does in a round that began at `now` and took no time.
    fn round(state: &mut State, now: Instant) {
        state.begin_round();
        for kind in [Kind::Discovery, Kind::Jwks] {
            let representation = Representation::new(kind, b"{}".to_vec());
            let (snapshot, _) = state.snapshot().with(kind, representation, now, None);
            state.store(kind, snapshot);
        }
        state.end_round(now, now + 45 * S);
    }

    #[test]
    fn a_copy_is_fresh_then_stale_then_not_served() {
        let now = Instant::now();
        let mut state = empty(now);
        assert!(state.snapshot().copy(Kind::Jwks, now).is_none());
        round(&mut state, now);
        for (age, expected) in
            [(0, Some(false)), (60, Some(false)), (61, Some(true)), (300, Some(true)), (301, None)]
        {
            let copy = state.snapshot().copy(Kind::Jwks, now + age * S);
            assert_eq!(copy.map(|copy| copy.is_stale), expected, "{age}");
        }
        let too_old = Unavailable { reason: Reason::TooOld, retry_after: Duration::ZERO };
        let outcome = begin(&mut state, now + 301 * S).err();
        assert_eq!(outcome.and_then(Result::err), Some(too_old));
        assert_eq!(state.ready(now + 301 * S), Err(Reason::TooOld));
    }

    #[test]
    fn all_workers_but_one_wait_for_the_round_that_has_begun_and_for_no_other() {
        let now = Instant::now();
        let mut state = empty(now);
        let tickets: Vec<_> = (0..3).map(|_| begin(&mut state, now).ok().unwrap()).collect();
        let outcome = begin(&mut state, now).err().unwrap();
        assert_eq!(outcome.err().map(|it| it.reason), Some(Reason::NotFetchedYet));
        assert!(state.must_wait(&tickets[0], Kind::Jwks, now));

        state.fail(Kind::Discovery, Reason::Timeout);
        state.fail(Kind::Jwks, Reason::Timeout);
        state.end_round(now + 5 * S, now + 7 * S);
        state.begin_round();
        for ticket in tickets {
            assert!(!state.must_wait(&ticket, Kind::Jwks, now + 6 * S));
            let timeout = Unavailable { reason: Reason::Timeout, retry_after: S };
            assert_eq!(state.end_waiting(ticket, Kind::Jwks, now + 6 * S).err(), Some(timeout));
        }
        // Between two rounds no request waits.
        state.end_round(now + 7 * S, now + 9 * S);
        assert!(begin(&mut state, now + 7 * S).is_err());
    }

    #[test]
    fn a_request_that_waited_gets_the_copy_as_soon_as_it_is_stored_and_as_a_miss() {
        let now = Instant::now();
        let mut state = empty(now);
        let ticket = begin(&mut state, now).ok().unwrap();
        let representation = Representation::new(Kind::Jwks, b"{}".to_vec());
        let (snapshot, is_changed) = state.snapshot().with(Kind::Jwks, representation, now, None);
        state.store(Kind::Jwks, snapshot);
        assert!(is_changed);
        assert!(state.must_wait(&ticket, Kind::Discovery, now));
        assert!(!state.must_wait(&ticket, Kind::Jwks, now));
        let copy = state.end_waiting(ticket, Kind::Jwks, now).unwrap();
        assert!(!copy.is_hit && state.snapshot().copy(Kind::Jwks, now).unwrap().is_hit);
    }

    #[test]
    fn the_same_bytes_again_are_no_change_and_one_representation() {
        let now = Instant::now();
        let mut state = empty(now);
        round(&mut state, now);
        let before = state.snapshot();
        for (body, expected) in [(&b"{}"[..], false), (b"{ }", true)] {
            let representation = Representation::new(Kind::Jwks, body.to_vec());
            let (after, is_changed) = before.with(Kind::Jwks, representation, now + S, None);
            assert_eq!(is_changed, expected);
            let [before, after] = [&before, &after].map(|it| it.held(Kind::Jwks).unwrap());
            let is_shared = Arc::ptr_eq(&before.representation, &after.representation);
            assert_eq!((is_shared, after.confirmed), (!expected, now + S));
        }
    }

    #[test]
    fn health_is_that_of_the_last_round_and_an_old_one_requests_another() {
        let now = Instant::now();
        let mut state = empty(now);
        let unknown = Health { state: Err(Reason::NotFetchedYet), requests_round: false };
        assert_eq!(state.health(now + 99 * S), unknown, "the first round has begun");
        round(&mut state, now);
        for (seconds, requests_round) in [(5, false), (6, true), (6, false)] {
            let health = Health { state: Ok(()), requests_round };
            assert_eq!(state.health(now + seconds * S), health);
        }
        assert!(state.is_requested());
        state.begin_round();
        assert!(!state.is_requested());
        state.fail(Kind::Jwks, Reason::Forbidden);
        state.end_round(now + 7 * S, now + 8 * S);
        assert_eq!(state.health(now + 8 * S).state, Err(Reason::Forbidden));
        // A copy is held all the same.
        assert_eq!(state.ready(now + 8 * S), Ok(()));
    }
}
