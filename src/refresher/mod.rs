//! The one thread that sends requests to upstream.
//!
//! A round is one try for both documents, or for the key set alone where a request asked for it: it
//! fetches, checks and stores them, and logs what changed. The refresher also decides when the next
//! round is due.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log, warn};

use crate::cache::{Cache, Confirmed, Round};
use crate::documents::{self, Jwks, Kind, MAX_SERVED_BYTES, Publication, Published, Refused};
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::key_sets::KeySets;
use crate::notices::Notices;
use crate::upstream::{Failure, Upstream};

/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failure, even if `CACHE_TTL_SECONDS` is longer: the end of an outage
/// should be noticed within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// The longest pause while API servers publish different key sets.
const WHILE_SETS_DIFFER: Duration = Duration::from_secs(5);
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
    /// The `kid`s of the key set that is held.
    kids: BTreeSet<String>,
    /// The least `max-age` of this round that counts.
    max_age: Option<Duration>,
    /// Of the last discovery document of upstream, whether it can be published or not.
    issuer: Option<String>,
    /// The issuer and the `jwks_uri` that were last logged.
    logged: Option<(String, String)>,
    notices: Notices<Topic>,
}

/// What came of a round.
enum Outcome {
    /// Both documents are valid.
    Complete,
    /// The key set is valid, and the other document was not fetched.
    Keys,
    Failed,
}

/// What lasts and is logged now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    FetchFailed(Kind),
    KidOfTwo,
    KeyChanged,
    LargeKeySet,
    Panic,
}

impl Refresher {
    pub(crate) const fn new(
        cache: Arc<Cache>,
        upstream: Upstream,
        publication: Publication,
        intervals: Intervals,
        key_grace: Duration,
    ) -> Self {
        Self {
            cache,
            upstream,
            publication,
            intervals,
            failures: 0,
            failed_rounds: 0,
            keys_failed: false,
            key_sets: KeySets::new(key_grace),
            kids: BTreeSet::new(),
            max_age: None,
            issuer: None,
            logged: None,
            notices: Notices::new(),
        }
    }

    /// The refresher's thread; it never returns.
    pub(crate) fn run(mut self) {
        loop {
            let asked = self.cache.await_round();
            let started = Instant::now();
            let retry_in = retry_pause(self.failures, self.intervals.cache_ttl, jitter());
            self.upstream.begin_round();
            self.max_age = None;
            let round = panic::catch_unwind(AssertUnwindSafe(|| match asked {
                Round::Complete => self.complete_round(retry_in),
                Round::Keys => self.keys_round(retry_in),
            }));
            let outcome = round.unwrap_or_else(|_| {
                if self.notices.is_due(Topic::Panic, "", Instant::now()) {
                    error!(retry_in:? = retry_in; "a round panicked, which is a bug in this program");
                }
                Outcome::Failed
            });
            match (asked, outcome) {
                (_, Outcome::Complete) => {
                    let pause = self.pause_after_success();
                    self.cache.end_round(started, pause);
                }
                (_, Outcome::Keys) => self.cache.end_keys_round(None),
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
        }
    }

    /// Notes a round that brought both documents; returns the pause after it.
    fn pause_after_success(&mut self) -> Duration {
        if self.failed_rounds > 0 {
            // Where API servers that work and that do not are asked in turn, once a minute.
            let failures = [Kind::Discovery, Kind::Jwks].map(Topic::FetchFailed);
            let ended = failures.iter().filter(|topic| self.notices.end(topic)).count();
            let level = if ended > 0 { Level::Info } else { Level::Debug };
            log!(level, failed_rounds = self.failed_rounds; "upstream recovered");
        }
        (self.failures, self.failed_rounds) = (0, 0);
        let mut pause = refresh_pause(self.intervals.cache_ttl, jitter());
        if self.key_sets.have_differed(Instant::now()) {
            pause = pause.min(WHILE_SETS_DIFFER);
        }
        if let (Some(max_age), Some(revalidate)) = (self.max_age, self.intervals.revalidate) {
            pause = pause.min(max_age.max(revalidate));
        }
        debug!(next_in:? = pause; "refreshed");
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
            self.cache.fail(Kind::Jwks, failure.reason());
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
        let refreshed = self.upstream.fetch(Kind::Discovery).and_then(|fetched| {
            let confirmed = self.confirmed(requested, fetched.max_age);
            self.store_discovery(&fetched.bytes, confirmed).map_err(Failure::Document)
        });
        refreshed.inspect_err(|failure| self.note_failure(Kind::Discovery, failure, retry_in))
    }

    fn store_discovery(&mut self, bytes: &[u8], confirmed: Confirmed) -> Result<(), Refused> {
        let Publication { jwks_uri, discovery_defaults, layout } = &self.publication;
        let discovery = documents::check_discovery(bytes)?;
        self.issuer = Some(discovery.issuer().to_owned());
        let published = documents::publish(discovery, jwks_uri, discovery_defaults)?;
        let body = documents::serialise(&published.value, *layout)?;
        self.log_published(&published);
        let paths = Paths { issuer: Some(published.issuer_path), jwks: published.jwks_path };
        self.store(Kind::Discovery, body, confirmed, Some(paths));
        Ok(())
    }

    /// The key set of upstream, if it is valid.
    fn fetch_keys(&mut self, retry_in: Duration) -> Option<(Jwks, Confirmed)> {
        let requested = Instant::now();
        let fetched = self.upstream.fetch(Kind::Jwks).and_then(|fetched| {
            let confirmed = self.confirmed(requested, fetched.max_age);
            let jwks = documents::check_jwks(&fetched.bytes).map_err(Failure::Document)?;
            Ok((jwks, confirmed))
        });
        self.keys_failed = fetched.is_err();
        fetched.inspect_err(|failure| self.note_failure(Kind::Jwks, failure, retry_in)).ok()
    }

    /// Stores the key set, with keys of earlier rounds; returns whether it can be published.
    fn store_keys(&mut self, jwks: &Jwks, confirmed: Confirmed, retry_in: Duration) -> bool {
        let mut key_sets = self.key_sets.with(&jwks.keys, self.issuer.as_deref(), confirmed.at);
        let (body, is_large) = loop {
            let value = jwks.with_keys(key_sets.keys().cloned().collect());
            match documents::serialise_keys(&value, self.publication.layout) {
                Err(Refused::TooLarge(bytes))
                    if key_sets.drop_oldest(bytes.saturating_sub(MAX_SERVED_BYTES)) => {}
                Ok(body) => break body,
                Err(refused) => {
                    self.note_failure(Kind::Jwks, &Failure::Document(refused), retry_in);
                    return false;
                }
            }
        };
        let bytes = body.len();
        self.store(Kind::Jwks, body, confirmed, None);
        self.log_keys(&key_sets, is_large.then_some(bytes));
        self.key_sets = key_sets;
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
        if self.cache.store(kind, Representation::new(kind, body), confirmed, paths) {
            info!(document = kind.name(), bytes; "document changed");
        }
    }

    fn note_failure(&mut self, kind: Kind, failure: &Failure, retry_in: Duration) {
        let (reason, hint) = (failure.reason(), failure.hint());
        self.cache.fail(kind, reason);
        let now = Instant::now();
        // Two errors of one kind differ in times and the like.
        let is_due = self.notices.is_due(Topic::FetchFailed(kind), hint, now);
        let level = if is_due { Level::Warn } else { Level::Debug };
        let serving = match self.cache.snapshot().copy(kind, now) {
            Some(copy) => format!("a copy of {:.1}s", copy.age.as_secs_f64()),
            None => "nothing".to_owned(),
        };
        log!(
            level, document = kind.name(), reason = reason.word(), error:% = failure,
            hint, serving:%, retry_in:? = retry_in; "fetch failed"
        );
    }

    /// Logs what is new about the keys. `large` is the length of a set that is large.
    fn log_keys(&mut self, key_sets: &KeySets, large: Option<usize>) {
        let kids = key_sets.keys().filter_map(documents::kid).map(ToOwned::to_owned).collect();
        for kid in self.kids.difference(&kids) {
            info!(kid:%; "signing key removed");
        }
        for kid in kids.difference(&self.kids) {
            info!(kid:%; "signing key added");
        }
        self.kids = kids;
        let now = Instant::now();
        for kid in key_sets.changed_kids(&self.key_sets) {
            if self.notices.is_due(Topic::KeyChanged, kid, now) {
                let hint = "a kid should name one key for ever: relying parties keep keys by it";
                warn!(kid:%, hint; "signing key changed");
            }
        }
        match key_sets.kid_of_two() {
            Some(kid) if self.notices.is_due(Topic::KidOfTwo, kid, now) => {
                let hint = "both are served, and relying parties may try one of them only";
                warn!(kid:%, hint; "two signing keys have one kid");
            }
            Some(_) => {}
            None if self.notices.end(&Topic::KidOfTwo) => {
                info!("each signing key has a kid of its own again");
            }
            None => {}
        }
        match large {
            Some(bytes) if self.notices.is_due(Topic::LargeKeySet, "", now) => {
                let hint =
                    "relying parties with Nimbus refuse more than 51200 bytes: remove old keys";
                warn!(bytes, hint; "the key set is large, and served without indentation");
            }
            Some(_) => {}
            None if self.notices.end(&Topic::LargeKeySet) => {
                info!("the key set is no longer large");
            }
            None => {}
        }
    }

    /// Logs the issuer and the `jwks_uri` if they differ from those logged last.
    fn log_published(&mut self, published: &Published) {
        let Published { issuer, jwks_uri, because, jwks_path, internal_issuer, .. } = published;
        let now = Some((issuer.clone(), jwks_uri.clone()));
        if self.logged == now {
            return;
        }
        info!(jwks_uri:%, issuer:%, reason = *because; "publishing");
        if jwks_path.is_none() {
            warn!(
                jwks_uri:%, issuer:%,
                hint = "relying parties must be able to reach it: point it here, or unset JWKS_URI";
                "jwks_uri is not at the issuer's scheme, host and port"
            );
        }
        if *internal_issuer {
            warn!(
                issuer:%,
                hint = "give kube-apiserver a --service-account-issuer that relying parties can reach";
                "the issuer cannot be reached from outside the cluster"
            );
        }
        self.logged = now;
    }
}

/// The time from the start of a round that brought both documents to the start of the next one: 75
/// to 90 % of `cache_ttl`, so that a copy is confirmed before it is stale, and replicas do not all
/// send requests at the same time. `jitter` is from 0 to 1.
fn refresh_pause(cache_ttl: Duration, jitter: f64) -> Duration {
    cache_ttl.mul_f64(0.75 + 0.15 * jitter)
}

/// The time from the start of a failed round to the start of the next one, after `failures` other
/// failed ones in a row. It doubles each time, up to `cache_ttl` or a minute, whichever is shorter.
/// `jitter`, from 0 to 1, shortens it by up to a fifth.
fn retry_pause(failures: u32, cache_ttl: Duration, jitter: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(cache_ttl).min(LONGEST_RETRY).mul_f64(0.8 + 0.2 * jitter)
}

/// A random number from 0 to 1, not for security.
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
