//! Pure: what is held, how fresh it is, and which requests wait for which round.

mod snapshot;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use snapshot::{Confirmed, FoundCopy, Lifetimes, Snapshot};

use crate::documents::Kind;
use crate::http::routes::Paths;
use crate::observed::Observed;
use crate::reason::Reason;

/// The age of the last complete round above which `/healthz` requests another one.
const HEALTH_AGE: Duration = Duration::from_secs(5);
/// How long a request for the key set waits for a round while a copy is held. Of the relying parties
/// measured, the least patient gives up after 500 ms (Nimbus). A round that took longer than this
/// was slow: no request waits for the next one.
const PATIENCE: Duration = Duration::from_millis(200);

/// All that `/metrics` and `/status` show of the cache.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) observed: Arc<Observed>,
    discovery_failed: Option<Reason>,
    jwks_failed: Option<Reason>,
}

impl View {
    /// Why the last fetch of `kind` failed; `None` when it did not.
    pub(crate) const fn failure(&self, kind: Kind) -> Option<Reason> {
        match kind {
            Kind::Discovery => self.discovery_failed,
            Kind::Jwks => self.jwks_failed,
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

/// What a round fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Complete,
    /// The key set alone, because a request asked for it.
    Keys,
}

/// The right to wait for one round and no other: the next one may begin before the waiting thread
/// has woken up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    round: u64,
    /// When the copy that is held was confirmed; `None`: there is none that can be served.
    held: Option<Instant>,
    /// `None`, when nothing is held and the round is a complete one: until it has ended.
    until: Option<Instant>,
}

impl Ticket {
    /// How long the request may wait from now on; `None`: until the round has ended.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }
}

/// What a request does that was not served at once.
pub(super) struct Asked {
    pub(super) waiting: Waiting,
    /// The refresher must be woken up.
    pub(super) requests_round: bool,
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
    /// Whether no document failed when it was last fetched, and nothing else is wrong.
    pub(super) state: Result<(), Reason>,
    pub(super) requests_round: bool,
}

/// What the refresher is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresher {
    Fetching(Round),
    Waiting,
    /// A request wants a round before the next one is due.
    Requested(Round),
}

pub(super) struct State {
    snapshot: Arc<Snapshot>,
    /// Why the last fetch of each document failed; `None` when it did not.
    discovery_failed: Option<Reason>,
    jwks_failed: Option<Reason>,
    observed: Arc<Observed>,
    refresher: Refresher,
    /// When the last round began, or was requested.
    round_started: Instant,
    /// The last round that ended took longer than [`PATIENCE`].
    is_slow: bool,
    /// The number of rounds that have ended.
    rounds: u64,
    /// Requests that wait for a round, and how many may at one time.
    waiting: usize,
    max_waiting: usize,
    /// When the last complete round ended.
    last_round: Option<Instant>,
    next_round: Instant,
}

impl State {
    pub(super) fn new(lifetimes: Lifetimes, workers: usize, paths: Paths, now: Instant) -> Self {
        Self {
            snapshot: Arc::new(Snapshot::new(lifetimes, paths)),
            discovery_failed: Some(Reason::NotFetchedYet),
            jwks_failed: Some(Reason::NotFetchedYet),
            observed: Arc::default(),
            refresher: Refresher::Fetching(Round::Complete),
            round_started: now,
            is_slow: false,
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

    pub(super) fn view(&self) -> View {
        View {
            snapshot: self.snapshot(),
            observed: Arc::clone(&self.observed),
            discovery_failed: self.discovery_failed,
            jwks_failed: self.jwks_failed,
        }
    }

    /// A request wants a copy of `kind` that was confirmed just now. It may cause a round, and may
    /// wait for the one in progress, if fewer requests are waiting than may.
    pub(super) fn ask(&mut self, kind: Kind, now: Instant) -> Asked {
        let requests_round = self.requests_round(kind, now);
        if requests_round {
            self.refresher = Refresher::Requested(Round::Keys);
            self.round_started = now;
        }
        let held = self.snapshot.copy(kind, now).and_then(|_| self.confirmed(kind));
        let is_complete = matches!(
            self.refresher,
            Refresher::Fetching(Round::Complete) | Refresher::Requested(Round::Complete)
        );
        let until = (held.is_some() || !is_complete).then(|| self.round_started + PATIENCE);
        let is_vain = self.refresher == Refresher::Waiting
            || self.waiting >= self.max_waiting
            || until.is_some_and(|until| self.is_slow || now >= until);
        let waiting = if is_vain {
            Waiting::Vain(self.copy_or_reason(kind, now))
        } else {
            self.waiting += 1;
            Waiting::For(Ticket { round: self.rounds, held, until })
        };
        Asked { waiting, requests_round }
    }

    fn requests_round(&self, kind: Kind, now: Instant) -> bool {
        let is_time = |revalidate| now.saturating_duration_since(self.round_started) >= revalidate;
        kind == Kind::Jwks
            && self.refresher == Refresher::Waiting
            && self.snapshot.lifetimes.revalidate.is_some_and(is_time)
    }

    fn confirmed(&self, kind: Kind) -> Option<Instant> {
        self.snapshot.held(kind).map(|held| held.confirmed.at)
    }

    /// Whether the round has neither ended nor brought a copy of `kind`.
    pub(super) fn must_wait(&self, ticket: &Ticket, kind: Kind, now: Instant) -> bool {
        let is_renewed =
            self.confirmed(kind) > ticket.held && self.snapshot.copy(kind, now).is_some();
        self.rounds == ticket.round && !is_renewed
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
            if let Some(reason) = self.missing(kind, now) {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Why no copy of `kind` can be served; `None` when one can be.
    pub(super) fn missing(&self, kind: Kind, now: Instant) -> Option<Reason> {
        self.snapshot.copy(kind, now).is_none().then(|| self.why_not(kind))
    }

    /// The health for `/healthz`. Requests a round when the last one is too old to tell.
    pub(super) fn health(&mut self, now: Instant) -> Health {
        let is_old = self.last_round.is_some_and(|at| now > at + HEALTH_AGE);
        let requests_round = is_old && self.refresher == Refresher::Waiting;
        if requests_round {
            self.refresher = Refresher::Requested(Round::Complete);
            self.round_started = now;
        }
        let state =
            self.discovery_failed.or(self.jwks_failed).or_else(|| self.observed.complaint());
        let state = state.map_or(Ok(()), Err);
        Health { state, requests_round }
    }

    pub(super) const fn is_requested(&self) -> bool {
        matches!(self.refresher, Refresher::Requested(_))
    }

    pub(super) fn until_next_round(&self, now: Instant) -> Duration {
        self.next_round.saturating_duration_since(now)
    }

    /// From now on requests may wait for this round.
    pub(super) fn begin_round(&mut self, now: Instant) -> Round {
        let round = match self.refresher {
            Refresher::Requested(Round::Keys) if now < self.next_round => Round::Keys,
            Refresher::Fetching(_) | Refresher::Waiting | Refresher::Requested(_) => {
                Round::Complete
            }
        };
        if !self.is_requested() {
            self.round_started = now;
        }
        self.refresher = Refresher::Fetching(round);
        round
    }

    /// `snapshot` has a new copy of `kind`, just fetched.
    pub(super) fn store(&mut self, kind: Kind, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        *self.failure_mut(kind) = None;
    }

    pub(super) const fn fail(&mut self, kind: Kind, reason: Reason) {
        *self.failure_mut(kind) = Some(reason);
    }

    pub(super) fn set_observed(&mut self, observed: Arc<Observed>) {
        self.observed = observed;
    }

    /// Ends a complete round. The next one is due at `next_round`.
    pub(super) fn end_round(&mut self, now: Instant, next_round: Instant) {
        self.last_round = Some(now);
        self.next_round = next_round;
        self.end_keys_round(now, None);
    }

    /// Ends a round for the key set alone. The next one is due when it was, or at `retry` if that is earlier.
    pub(super) fn end_keys_round(&mut self, now: Instant, retry: Option<Instant>) {
        self.next_round = retry.map_or(self.next_round, |retry| retry.min(self.next_round));
        self.refresher = Refresher::Waiting;
        self.rounds += 1;
        self.is_slow = now.saturating_duration_since(self.round_started) > PATIENCE;
    }
}

#[cfg(test)]
mod tests;
