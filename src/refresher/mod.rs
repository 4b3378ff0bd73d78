//! The one thread that sends requests to upstream.
//!
//! A round is one try for both documents, or for the key set alone where a request asked for it: it
//! fetches, checks and stores them, and logs what changed. The refresher also decides when the next
//! round is due.

mod alternation;
mod key_history;
mod own_token;
pub(crate) mod pauses;
mod report;

use std::hash::{BuildHasher as _, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::debug;

use crate::cache::{Cache, Confirmed, Round};
use crate::documents::{self, Jwks, Kind, Publication, Refused};
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::key_sets::KeySets;
use crate::logging::line::milliseconds;
use crate::metrics::Metrics;
use crate::observed::{Disagreement, Observed, OwnTokenState};
use crate::reason::Reason;
use crate::upstream::{Failure, Fetched, Upstream};

use key_history::KeyHistory;
use own_token::{OwnToken, State};
use pauses::{WHILE_SETS_DIFFER, refresh_pause, retry_pause, until_renewal};
use report::Report;

/// How long API servers count as disagreeing after the last difference, and so many times `CACHE_TTL_SECONDS`
/// at least: while they do, the next difference comes within that time.
const DISAGREE_FOR: Duration = Duration::from_secs(300);
const DISAGREE_FOR_TTLS: u32 = 3;
/// The `max-age` of a kube-apiserver that signs itself. One that is shorter comes from an external
/// signer, which says when it is asked again, and counts.
const CONSTANT_MAX_AGE: Duration = Duration::from_secs(3600);

/// When rounds are due.
pub(crate) struct Intervals {
    pub(crate) cache_ttl: Duration,
    /// As in [`Lifetimes`](crate::cache::Lifetimes).
    pub(crate) revalidate: Option<Duration>,
}

/// Fetches both documents at start, and then again before the copies are stale.
pub(crate) struct Refresher {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    upstream: Upstream,
    publication: Publication,
    intervals: Intervals,
    /// How many complete rounds have failed in a row, for the pause.
    failures: u32,
    /// How many rounds of any kind have failed since both documents were valid, for the log.
    failed_rounds: u32,
    /// The key set could not be fetched, or not be used, last time.
    keys_failed: bool,
    key_sets: KeySets,
    key_history: KeyHistory,
    /// The least `max-age` of this round that counts.
    max_age: Option<Duration>,
    /// Of the last discovery document of upstream, whether it can be published or not.
    issuer: Option<String>,
    /// Of the discovery document that is served.
    served_issuer: Option<String>,
    /// `ISSUER`.
    expected_issuer: Option<String>,
    /// `None`: `OWN_TOKEN_CHECK` is off.
    own_token: Option<OwnToken>,
    report: Report,
}

/// What `/healthz` says 503 for besides fetches that fail.
pub(crate) struct Expectations {
    /// The issuer that upstream must have.
    pub(crate) issuer: Option<String>,
    /// What is served must verify the gateway's own token.
    pub(crate) own_token: bool,
}

/// What came of a round.
enum Outcome {
    /// Both documents are valid.
    Complete,
    /// The key set is valid, and the other document was not fetched.
    Keys,
    Failed,
}

impl Refresher {
    pub(crate) fn new(
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        upstream: Upstream,
        publication: Publication,
        intervals: Intervals,
        key_grace: Duration,
        expectations: Expectations,
    ) -> Self {
        Self {
            cache,
            metrics,
            upstream,
            publication,
            intervals,
            failures: 0,
            failed_rounds: 0,
            keys_failed: false,
            key_sets: KeySets::new(key_grace),
            key_history: KeyHistory::default(),
            max_age: None,
            issuer: None,
            served_issuer: None,
            expected_issuer: expectations.issuer,
            own_token: expectations.own_token.then(OwnToken::new),
            report: Report::new(Instant::now()),
        }
    }

    /// The refresher's thread; it never returns.
    pub(crate) fn run(mut self) {
        self.observe();
        loop {
            let asked = self.cache.await_round();
            // A copy may have become too old since the last round, and be renewed by this one.
            self.report_what_is_served();
            let started = Instant::now();
            let retry_in = retry_pause(self.failures, self.intervals.cache_ttl, jitter());
            self.upstream.begin_round();
            self.report.begin_round();
            self.max_age = None;
            let round = panic::catch_unwind(AssertUnwindSafe(|| {
                let outcome = match asked {
                    Round::Complete => self.complete_round(retry_in),
                    Round::Keys => self.keys_round(retry_in),
                };
                let wants_round = self.check_own_token(&outcome);
                (outcome, wants_round)
            }));
            let (outcome, wants_round) = round.unwrap_or_else(|_| {
                self.report.panicked(retry_in);
                self.fail_both(Reason::InternalError);
                (Outcome::Failed, false)
            });
            self.observe();
            match (asked, outcome) {
                (_, Outcome::Complete) => {
                    let pause = self.pause_after_success();
                    self.cache.end_round(started, if wants_round { Duration::ZERO } else { pause });
                }
                (_, Outcome::Keys) => self.cache.end_keys_round(wants_round.then_some(started)),
                (Round::Complete, Outcome::Failed) => {
                    let pause = self.pause_after_failure(retry_in);
                    self.cache.end_round(started, pause);
                }
                // What requests cause does not make the pauses between rounds longer.
                (Round::Keys, Outcome::Failed) => {
                    self.failed_rounds = self.failed_rounds.saturating_add(1);
                    self.cache.end_keys_round(Some(started + retry_in));
                }
            }
            self.report_what_is_served();
        }
    }

    /// Notes a round that brought both documents; returns the pause after it.
    fn pause_after_success(&mut self) -> Duration {
        if self.failed_rounds > 0 {
            self.report.recovered(self.failed_rounds);
        }
        (self.failures, self.failed_rounds) = (0, 0);
        let mut pause = refresh_pause(self.intervals.cache_ttl, jitter());
        if self.key_sets.have_differed(Instant::now()) {
            pause = pause.min(WHILE_SETS_DIFFER);
        }
        if let (Some(max_age), Some(revalidate)) = (self.max_age, self.intervals.revalidate) {
            pause = pause.min(max_age.max(revalidate));
        }
        if let Some(due) = self.upstream.token_renewal_due() {
            pause = pause.min(until_renewal(due, SystemTime::now()));
        }
        debug!(next_in_ms = milliseconds(pause); "refreshed");
        pause
    }

    /// Notes a round that did not bring both documents; returns the pause after it.
    const fn pause_after_failure(&mut self, retry_in: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        retry_in
    }

    /// Fetches, checks and stores both documents.
    fn complete_round(&mut self, retry_in: Duration) -> Outcome {
        let discovery = self.refresh_discovery(retry_in);
        if let Err(failure) = &discovery
            && failure.concerns_both()
        {
            self.keys_failed = true;
            self.fail(Kind::Jwks, failure.reason());
            return Outcome::Failed;
        }
        let keys = self.fetch_keys(retry_in);
        let is_valid =
            keys.is_some_and(|(jwks, confirmed)| self.store_keys(&jwks, confirmed, retry_in));
        if discovery.is_ok() && is_valid { Outcome::Complete } else { Outcome::Failed }
    }

    /// Fetches the key set, and the discovery document as well if that is different or valid again: then
    /// it was a complete round.
    fn keys_round(&mut self, retry_in: Duration) -> Outcome {
        let had_failed = self.keys_failed;
        let Some((jwks, confirmed)) = self.fetch_keys(retry_in) else { return Outcome::Failed };
        // Keys of different issuers must not be merged.
        let discovery = (had_failed || self.key_sets.differ(&jwks.keys))
            .then(|| self.refresh_discovery(retry_in).is_ok());
        let is_valid = self.store_keys(&jwks, confirmed, retry_in);
        match discovery {
            None if is_valid => Outcome::Keys,
            Some(true) if is_valid => Outcome::Complete,
            None | Some(_) => Outcome::Failed,
        }
    }

    fn refresh_discovery(&mut self, retry_in: Duration) -> Result<(), Failure> {
        let requested = Instant::now();
        let refreshed = self.fetch(Kind::Discovery).and_then(|fetched| {
            let confirmed = self.confirmed(requested, fetched.max_age);
            self.store_discovery(&fetched.bytes, confirmed).map_err(Failure::Document)
        });
        refreshed.inspect_err(|failure| self.note_failure(Kind::Discovery, failure, retry_in))
    }

    fn fetch(&mut self, kind: Kind) -> Result<Fetched, Failure> {
        let started = Instant::now();
        let fetched = self.upstream.fetch(kind);
        self.metrics.fetch_took(kind, started.elapsed());
        fetched
    }

    fn store_discovery(&mut self, bytes: &[u8], confirmed: Confirmed) -> Result<(), Refused> {
        let Publication { jwks_uri, discovery_defaults, layout } = &self.publication;
        let discovery = documents::check_discovery(bytes)?;
        self.issuer = Some(discovery.issuer().to_owned());
        let published = documents::publish(discovery, jwks_uri, discovery_defaults)?;
        let body = documents::serialise(&published.value, *layout)?;
        self.report.issuer(&published.issuer, self.expected_issuer.as_deref());
        self.report.published(&published);
        self.served_issuer = Some(published.issuer);
        let paths = Paths { issuer: Some(published.issuer_path), jwks: published.jwks_path };
        self.store(Kind::Discovery, body, confirmed, Some(paths));
        self.observe();
        Ok(())
    }

    /// The key set of upstream, if it is valid.
    fn fetch_keys(&mut self, retry_in: Duration) -> Option<(Jwks, Confirmed)> {
        let requested = Instant::now();
        let fetched = self.fetch(Kind::Jwks).and_then(|fetched| {
            let confirmed = self.confirmed(requested, fetched.max_age);
            let jwks = documents::check_jwks(&fetched.bytes).map_err(Failure::Document)?;
            Ok((jwks, confirmed))
        });
        self.keys_failed = fetched.is_err();
        fetched.inspect_err(|failure| self.note_failure(Kind::Jwks, failure, retry_in)).ok()
    }

    /// Stores the key set, with keys of earlier rounds; returns whether it can be published.
    fn store_keys(&mut self, jwks: &Jwks, confirmed: Confirmed, retry_in: Duration) -> bool {
        self.report.listed(&jwks.keys);
        let mut key_sets = self.key_sets.with(&jwks.keys, self.issuer.as_deref(), confirmed.at);
        let serialised = key_sets.serialise(jwks, self.publication.layout, |keys| keys);
        let (body, is_large) = match serialised {
            Ok(serialised) => serialised,
            Err(refused) => {
                self.note_failure(Kind::Jwks, &Failure::Document(refused), retry_in);
                return false;
            }
        };
        let bytes = body.len();
        self.store(Kind::Jwks, body, confirmed, None);
        self.report.keys(&key_sets, &self.key_sets, is_large.then_some(bytes));
        self.key_sets = key_sets;
        self.key_history.note(&self.key_sets, SystemTime::now());
        self.observe();
        true
    }

    /// A copy's age counts from the request, not from the response: RFC 9111 §4.2.3.
    fn confirmed(&mut self, requested: Instant, max_age: Option<Duration>) -> Confirmed {
        let max_age = max_age.filter(|max_age| *max_age < CONSTANT_MAX_AGE);
        self.max_age = [self.max_age, max_age].into_iter().flatten().min();
        Confirmed { at: requested, max_age }
    }

    fn store(&self, kind: Kind, body: Vec<u8>, confirmed: Confirmed, paths: Option<Paths>) {
        let bytes = body.len();
        self.metrics.fetched(kind, None);
        if self.cache.store(kind, Representation::new(kind, body), confirmed, paths) {
            self.report.changed(kind, bytes);
        }
    }

    fn fail(&self, kind: Kind, reason: Reason) {
        self.metrics.fetched(kind, Some(reason));
        self.cache.fail(kind, reason);
    }

    fn fail_both(&self, reason: Reason) {
        self.fail(Kind::Discovery, reason);
        self.fail(Kind::Jwks, reason);
    }

    fn note_failure(&mut self, kind: Kind, failure: &Failure, retry_in: Duration) {
        self.fail(kind, failure.reason());
        let copy = self.cache.snapshot().copy(kind, Instant::now());
        self.report.fetch_failed(kind, failure, copy.map(|copy| copy.age), retry_in);
    }

    /// Checks the gateway's own token against what is served; returns whether another round may help.
    fn check_own_token(&mut self, outcome: &Outcome) -> bool {
        let Some(own_token) = &mut self.own_token else { return false };
        if matches!(outcome, Outcome::Failed) {
            own_token.interrupt();
            return false;
        }
        let (Some(issuer), Some(token)) = (&self.served_issuer, self.upstream.token()) else {
            return false;
        };
        let time = (Instant::now(), SystemTime::now());
        let keys: Vec<_> = self.key_sets.keys().collect();
        let checked = own_token.check(token.text(), issuer, &keys, time);
        self.report.own_token(&checked, issuer);
        checked.wants_round
    }

    /// Lets probes and pages see what is known besides the documents.
    fn observe(&self) {
        self.cache.set_observed(Arc::new(self.observed()));
    }

    fn observed(&self) -> Observed {
        let is_expected =
            self.expected_issuer.is_none() || self.expected_issuer == self.served_issuer;
        let own_token = match self.own_token.as_ref().map(OwnToken::state) {
            None => OwnTokenState::Off,
            Some(State::NotChecked) => OwnTokenState::NotChecked,
            Some(State::Pending(_)) => OwnTokenState::Pending,
            Some(State::Verified) => OwnTokenState::Verified,
            Some(State::Failed(_)) => OwnTokenState::Failed,
        };
        let window = DISAGREE_FOR.max(self.intervals.cache_ttl * DISAGREE_FOR_TTLS);
        let disagree_until = |kind| self.report.differed(kind).map(|at| at + window);
        Observed {
            issuer: self.served_issuer.clone(),
            issuer_mismatch: self.served_issuer.is_some() && !is_expected,
            own_token,
            disagreement: Disagreement {
                discovery: disagree_until(Kind::Discovery),
                jwks: disagree_until(Kind::Jwks),
            },
            keys: self.key_history.served(&self.key_sets),
            validities: self.upstream.validities(),
        }
    }

    /// Notes for the log which documents can be served now.
    fn report_what_is_served(&mut self) {
        for kind in [Kind::Discovery, Kind::Jwks] {
            let now = Instant::now();
            let too_old_for = self.cache.snapshot().too_old_for(kind, now);
            self.report.serves(kind, self.cache.missing(kind).map(|reason| (reason, too_old_for)));
        }
    }
}

/// A random number from 0 to 1, not for security.
fn jitter() -> f64 {
    let hash = RandomState::new().hash_one(());
    f64::from(u16::try_from(hash & 0xffff).unwrap_or_default()) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn jitter_is_spread_over_its_whole_range() {
        // With 1,000 values each tenth is missed with a probability of 10^-46.
        let tenths: BTreeSet<_> = (0..1000)
            .map(|_| jitter())
            .inspect(|jitter| assert!((0.0..=1.0).contains(jitter), "{jitter}"))
            .filter_map(|jitter| (1..=10).find(|tenth| jitter * 10.0 <= f64::from(*tenth)))
            .collect();
        assert_eq!(tenths, (1..=10).collect());
    }
}
