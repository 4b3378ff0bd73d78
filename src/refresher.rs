//! The one thread that sends requests to upstream.
//!
//! A round is one try for both documents: it fetches, checks and stores them, and logs what
//! changed. The refresher also decides when the next round is due.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::cache::Cache;
use crate::documents::{self, Kind, Publication, Published, Refused};
use crate::http::representation::Representation;
use crate::http::routes::Paths;
use crate::upstream::{Failure, Upstream};

/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failure, even if `CACHE_TTL_SECONDS` is longer: the end of an outage
/// should be noticed within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Fetches both documents at start, and then again before the copies are stale.
pub(crate) struct Refresher {
    cache: Arc<Cache>,
    upstream: Upstream,
    publication: Publication,
    cache_ttl: Duration,
    /// How many rounds have failed in a row.
    failures: u32,
    /// The `kid`s of the key set that is held.
    kids: BTreeSet<String>,
    /// The issuer and the `jwks_uri` that were last logged.
    logged: Option<(String, String)>,
}

impl Refresher {
    pub(crate) const fn new(
        cache: Arc<Cache>,
        upstream: Upstream,
        publication: Publication,
        cache_ttl: Duration,
    ) -> Self {
        let kids = BTreeSet::new();
        Self { cache, upstream, publication, cache_ttl, failures: 0, kids, logged: None }
    }

    /// The refresher's thread; it never returns.
    pub(crate) fn run(mut self) {
        loop {
            self.cache.begin_round();
            let started = Instant::now();
            let retry_in = retry_pause(self.failures, self.cache_ttl, jitter());
            let round = panic::catch_unwind(AssertUnwindSafe(|| self.round(retry_in)));
            let is_complete = round.unwrap_or_else(|_| {
                error!(retry_in:? = retry_in; "a round panicked, which is a bug in this program");
                false
            });
            let pause = if is_complete {
                self.pause_after_success()
            } else {
                self.pause_after_failure(retry_in)
            };
            self.cache.end_round(started, pause);
            self.cache.await_round();
        }
    }

    /// Notes a round that brought both documents; returns the pause after it.
    fn pause_after_success(&mut self) -> Duration {
        if self.failures > 0 {
            info!(failed_rounds = self.failures; "upstream recovered");
        }
        self.failures = 0;
        let pause = refresh_pause(self.cache_ttl, jitter());
        debug!(next_in:? = pause; "refreshed");
        pause
    }

    /// Notes a round that did not bring both documents; returns the pause after it.
    const fn pause_after_failure(&mut self, retry_in: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        retry_in
    }

    /// Fetches, checks and stores both documents; returns whether both are valid.
    fn round(&mut self, retry_in: Duration) -> bool {
        let discovery = self.refresh(Kind::Discovery);
        if let Err(failure) = &discovery {
            self.note_failure(Kind::Discovery, failure, retry_in);
            if failure.concerns_both() {
                self.cache.fail(Kind::Jwks, failure.reason());
                return false;
            }
        }
        let jwks = self.refresh(Kind::Jwks);
        if let Err(failure) = &jwks {
            self.note_failure(Kind::Jwks, failure, retry_in);
        }
        discovery.is_ok() && jwks.is_ok()
    }

    fn refresh(&mut self, kind: Kind) -> Result<(), Failure> {
        // A copy's age counts from the request, not from the response: RFC 9111 §4.2.3.
        let requested = Instant::now();
        let bytes = self.upstream.fetch(kind)?;
        match kind {
            Kind::Discovery => self.store_discovery(&bytes, requested),
            Kind::Jwks => self.store_jwks(&bytes, requested),
        }
        .map_err(Failure::Document)
    }

    fn store_discovery(&mut self, bytes: &[u8], confirmed: Instant) -> Result<(), Refused> {
        let Publication { jwks_uri, discovery_defaults, layout } = &self.publication;
        let discovery = documents::check_discovery(bytes)?;
        let published = documents::publish(discovery, jwks_uri, discovery_defaults)?;
        let body = documents::serialise(&published.value, *layout)?;
        self.log_published(&published);
        let paths = Paths { issuer: Some(published.issuer_path), jwks: published.jwks_path };
        self.store(Kind::Discovery, body, confirmed, Some(paths));
        Ok(())
    }

    fn store_jwks(&mut self, bytes: &[u8], confirmed: Instant) -> Result<(), Refused> {
        let jwks = documents::check_jwks(bytes)?;
        let body = documents::serialise(&jwks.value, self.publication.layout)?;
        self.store(Kind::Jwks, body, confirmed, None);
        self.log_keys(jwks.kids.into_iter().collect());
        Ok(())
    }

    fn store(&self, kind: Kind, body: Vec<u8>, confirmed: Instant, paths: Option<Paths>) {
        let bytes = body.len();
        if self.cache.store(kind, Representation::new(kind, body), confirmed, paths) {
            info!(document = kind.name(), bytes; "document changed");
        }
    }

    fn note_failure(&self, kind: Kind, failure: &Failure, retry_in: Duration) {
        let reason = failure.reason();
        self.cache.fail(kind, reason);
        let serving = match self.cache.snapshot().copy(kind, Instant::now()) {
            Some(copy) => format!("a copy of {:.1}s", copy.age.as_secs_f64()),
            None => "nothing".to_owned(),
        };
        warn!(
            document = kind.name(), reason = reason.word(), error:% = failure,
            hint = failure.hint(), serving:%, retry_in:? = retry_in; "fetch failed"
        );
    }

    fn log_keys(&mut self, kids: BTreeSet<String>) {
        for kid in kids.difference(&self.kids) {
            info!(kid:%; "signing key added");
        }
        for kid in self.kids.difference(&kids) {
            info!(kid:%; "signing key removed");
        }
        self.kids = kids;
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
