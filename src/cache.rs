//! What is held and how fresh it is, and the one thread that refreshes it.
//!
//! Only the refresher asks upstream: requests see what is held, and wait for the refresher's
//! round only when nothing is. So any number of cold clients cost one fetch, a client that goes
//! away cancels nothing, and upstream's slowness never reaches a request while a copy is held.
//! What requests see is one value, [`Shown`], replaced as a whole: under the lock there is no
//! I/O, no logging and no serializing.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::config::{Lifetimes, Publication};
use crate::documents::{self, Kind, Published};
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::reason::Reason;
use crate::upstream::{Failure, Upstream};

/// How old the last round may be before `/healthz` asks for another.
const HEALTH_AGE: Duration = Duration::from_secs(5);
/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failure, where `CACHE_TTL_SECONDS` is longer still: an outage's end
/// should show within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

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
    lifetimes: Lifetimes,
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

    fn usable(&self, kind: Kind, shown: &Shown, cache_hit: bool) -> Option<Copy> {
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

    fn begin_round(&self) -> Instant {
        let mut state = self.lock();
        state.fetching = true;
        state.wanted = false;
        drop(state);
        Instant::now()
    }

    /// Shows `document`, confirmed at `confirmed`; says whether it differs from the one before.
    fn store(
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

    fn fail(&self, kind: Kind, why: Reason) {
        *self.lock().failed(kind) = Some(why);
    }

    /// The next round begins `pause` after `begin`, when this one did: what a hanging upstream
    /// cost must not be added to how stale a copy gets.
    fn end_round(&self, begin: Instant, pause: Duration) {
        let mut state = self.lock();
        state.fetching = false;
        state.rounds += 1;
        state.last_round = Some(Instant::now());
        state.next_round = begin + pause;
        drop(state);
        self.changed.notify_all();
    }

    /// Returns when the next round is due or wanted.
    fn await_round(&self) {
        let state = self.lock();
        let left = state.next_round.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(state, left, |state| !state.wanted));
    }
}

/// Fetches both documents, at once and then before each copy is stale.
pub(crate) struct Refresher {
    cache: Arc<Cache>,
    upstream: Upstream,
    publication: Publication,
    /// Rounds that failed since the last good one.
    failures: u32,
    kids: BTreeSet<String>,
    /// The issuer and `jwks_uri` last told to the log.
    told: Option<(String, String)>,
}

impl Refresher {
    pub(crate) fn new(cache: Arc<Cache>, upstream: Upstream, publication: Publication) -> Self {
        let kids = BTreeSet::new();
        Self { cache, upstream, publication, failures: 0, kids, told: None }
    }

    /// Never returns; the refresher's thread.
    pub(crate) fn run(mut self) {
        loop {
            let begin = self.cache.begin_round();
            let retry_in = retry_pause(self.failures, self.cache.lifetimes.cache_ttl, jitter());
            let round = panic::catch_unwind(AssertUnwindSafe(|| self.round(retry_in)));
            let good = round.unwrap_or_else(|_| {
                error!(retry_in:? = retry_in; "a refresh panicked, which is a mistake in this program");
                false
            });
            let pause = self.tell_outcome(good, retry_in);
            self.cache.end_round(begin, pause);
            self.cache.await_round();
        }
    }

    /// Counts the outcome and returns the pause after it.
    fn tell_outcome(&mut self, good: bool, retry_in: Duration) -> Duration {
        if !good {
            self.failures = self.failures.saturating_add(1);
            return retry_in;
        }
        if self.failures > 0 {
            info!(failed_rounds = self.failures; "upstream recovered");
        }
        self.failures = 0;
        let pause = refresh_pause(self.cache.lifetimes.cache_ttl, jitter());
        debug!(next_in:? = pause; "refreshed");
        pause
    }

    /// One try of both documents; whether both are good.
    fn round(&mut self, retry_in: Duration) -> bool {
        let discovery = self.refresh(Kind::Discovery);
        let failed = discovery.err();
        if let Some(failure) = &failed {
            self.tell_failure(Kind::Discovery, failure, retry_in);
            if failure.concerns_both() {
                self.cache.fail(Kind::Jwks, failure.why());
                return false;
            }
        }
        let jwks = self.refresh(Kind::Jwks);
        if let Err(failure) = &jwks {
            self.tell_failure(Kind::Jwks, failure, retry_in);
        }
        failed.is_none() && jwks.is_ok()
    }

    fn refresh(&mut self, kind: Kind) -> Result<(), Failure> {
        // The copy is as old as the question, not as the answer: RFC 9111 §4.2.3.
        let asked = Instant::now();
        let bytes = self.upstream.fetch(kind)?;
        match kind {
            Kind::Discovery => self.take_discovery(&bytes, asked),
            Kind::Jwks => self.take_jwks(&bytes, asked),
        }
        .map_err(Failure::Document)
    }

    fn take_discovery(&mut self, bytes: &[u8], asked: Instant) -> Result<(), documents::Refused> {
        let Publication { jwks_uri, discovery_defaults, pretty } = &self.publication;
        let discovery = documents::discovery(bytes)?;
        let published = documents::publish(discovery, jwks_uri, discovery_defaults)?;
        let body = documents::serialise(&published.value, *pretty)?;
        self.tell_published(&published);
        let paths = Paths { issuer: Some(published.issuer_path), jwks: published.jwks_path };
        self.store(Kind::Discovery, body, asked, Some(paths));
        Ok(())
    }

    fn take_jwks(&mut self, bytes: &[u8], asked: Instant) -> Result<(), documents::Refused> {
        let jwks = documents::jwks(bytes)?;
        let body = documents::serialise(&jwks.value, self.publication.pretty)?;
        self.store(Kind::Jwks, body, asked, None);
        let kids: BTreeSet<String> = jwks.kids.into_iter().collect();
        for kid in kids.difference(&self.kids) {
            info!(kid:%; "signing key added");
        }
        for kid in self.kids.difference(&kids) {
            info!(kid:%; "signing key gone");
        }
        self.kids = kids;
        Ok(())
    }

    fn store(&self, kind: Kind, body: Vec<u8>, confirmed: Instant, paths: Option<Paths>) {
        let bytes = body.len();
        if self.cache.store(kind, Representation::new(kind, body), confirmed, paths) {
            info!(document = kind.name(), bytes; "document changed");
        }
    }

    fn tell_failure(&self, kind: Kind, failure: &Failure, retry_in: Duration) {
        let why = failure.why();
        self.cache.fail(kind, why);
        let serving = match self.cache.usable(kind, &self.cache.shown(), true) {
            Some(copy) => format!("a copy of {:.1}s", copy.age.as_secs_f64()),
            None => "nothing".to_owned(),
        };
        warn!(
            document = kind.name(), why = why.word(), error:% = failure, hint = failure.hint(),
            serving:%, retry_in:? = retry_in; "fetch failed"
        );
    }

    fn tell_published(&mut self, published: &Published) {
        let Published { issuer, jwks_uri, because, jwks_path, internal_issuer, .. } = published;
        let now = Some((issuer.clone(), jwks_uri.clone()));
        if self.told == now {
            return;
        }
        info!(jwks_uri:%, issuer:%, why = *because; "publishing");
        if jwks_path.is_none() {
            warn!(
                jwks_uri:%, issuer:%,
                hint = "relying parties must reach it too: make it lead to this gateway, or unset JWKS_URI";
                "jwks_uri is not at the issuer's scheme, host and port"
            );
        }
        if *internal_issuer {
            warn!(
                issuer:%,
                hint = "give kube-apiserver a --service-account-issuer that relying parties can reach";
                "the issuer can only be reached from inside"
            );
        }
        self.told = now;
    }
}

/// How long after the begin of a good round the next begins: before a copy is stale, and not for all replicas
/// at one time. `jitter` is from 0 to 1.
fn refresh_pause(cache_ttl: Duration, jitter: f64) -> Duration {
    cache_ttl.mul_f64(0.75 + 0.15 * jitter)
}

/// How long after the begin of a failed round the next begins, `failures` having failed before it:
/// doubled each time, at most `CACHE_TTL`.
fn retry_pause(failures: u32, cache_ttl: Duration, jitter: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(cache_ttl).min(LONGEST_RETRY).mul_f64(0.8 + 0.2 * jitter)
}

/// Some number from 0 to 1; it need not be hard to guess.
fn jitter() -> f64 {
    let hash = RandomState::new().hash_one(());
    f64::from(u16::try_from(hash & 0xffff).unwrap_or_default()) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_refreshed_before_they_are_stale() {
        let ttl = Duration::from_secs(60);
        assert_eq!(refresh_pause(ttl, 0.0), Duration::from_secs(45));
        assert_eq!(refresh_pause(ttl, 1.0), Duration::from_secs(54));
    }

    #[test]
    fn retries_back_off_to_the_ttl_and_to_a_minute() {
        let ttl = Duration::from_secs(3);
        let pauses = [0, 1, 2, 3, 60].map(|failures| retry_pause(failures, ttl, 1.0).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 3000, 3000]);
        assert_eq!(retry_pause(99, Duration::from_secs(86_400), 1.0), LONGEST_RETRY);
        assert!(retry_pause(0, Duration::from_millis(100), 0.0) >= Duration::from_millis(80));
    }

    #[test]
    fn jitter_stays_in_its_range() {
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&jitter()));
        }
    }
}
