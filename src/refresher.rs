//! The one thread that asks upstream.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::cache::Cache;
use crate::documents::{self, Kind, Publication, Published};
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::upstream::{Failure, Upstream};

/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failure, where `CACHE_TTL_SECONDS` is longer still: an outage's end
/// should show within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

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
        let Publication { jwks_uri, discovery_defaults, layout } = &self.publication;
        let discovery = documents::discovery(bytes)?;
        let published = documents::publish(discovery, jwks_uri, discovery_defaults)?;
        let body = documents::serialise(&published.value, *layout)?;
        self.tell_published(&published);
        let paths = Paths { issuer: Some(published.issuer_path), jwks: published.jwks_path };
        self.store(Kind::Discovery, body, asked, Some(paths));
        Ok(())
    }

    fn take_jwks(&mut self, bytes: &[u8], asked: Instant) -> Result<(), documents::Refused> {
        let jwks = documents::jwks(bytes)?;
        let body = documents::serialise(&jwks.value, self.publication.layout)?;
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
