//! Pure: the copies that are held, and how fresh each is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::documents::Kind;
use crate::http::representation::Representation;
use crate::http::routes::Paths;

/// How long copies live.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lifetimes {
    /// The age above which a copy counts as stale.
    pub(crate) cache_ttl: Duration,
    /// The age up to which a copy is served; at least `cache_ttl`.
    pub(crate) max_stale: Duration,
    /// The age above which a request for the key set asks for a round, and the least time from the
    /// start of one round to that of another that is asked for so. `None`: none is.
    pub(crate) revalidate: Option<Duration>,
}

/// When upstream confirmed a copy, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Confirmed {
    /// When the request for it was sent: RFC 9111 §4.2.3.
    pub(crate) at: Instant,
    /// Upstream's `max-age`, where clients must not be given a longer one.
    pub(crate) max_age: Option<Duration>,
}

/// A document and when upstream last confirmed it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) representation: Arc<Representation>,
    pub(super) confirmed: Confirmed,
}

/// Everything that requests see. It never changes: a new one replaces it.
pub(crate) struct Snapshot {
    pub(super) lifetimes: Lifetimes,
    discovery: Option<Held>,
    jwks: Option<Held>,
    pub(crate) paths: Arc<Paths>,
}

/// A copy to serve.
pub(crate) struct FoundCopy {
    pub(crate) representation: Arc<Representation>,
    /// Since upstream last confirmed it.
    pub(crate) age: Duration,
    /// Upstream's, as in [`Confirmed`].
    pub(crate) max_age: Option<Duration>,
    /// Older than `CACHE_TTL_SECONDS`.
    pub(crate) is_stale: bool,
    /// It was held, so that the request did not wait.
    pub(crate) is_hit: bool,
}

impl Snapshot {
    pub(super) fn new(lifetimes: Lifetimes, paths: Paths) -> Self {
        Self { lifetimes, discovery: None, jwks: None, paths: Arc::new(paths) }
    }

    /// The copy of `kind`, unless it is too old to be served.
    pub(crate) fn copy(&self, kind: Kind, now: Instant) -> Option<FoundCopy> {
        let held = self.held(kind)?;
        let Condition { age, is_stale, is_available } = self.condition(kind, now)?;
        is_available.then(|| FoundCopy {
            representation: Arc::clone(&held.representation),
            age,
            max_age: held.confirmed.max_age,
            is_stale,
            is_hit: true,
        })
    }

    /// The state of the copy of `kind`; `None` when none is held.
    pub(crate) fn condition(&self, kind: Kind, now: Instant) -> Option<Condition> {
        let age = now.saturating_duration_since(self.held(kind)?.confirmed.at);
        Some(Condition {
            age,
            is_stale: age > self.lifetimes.cache_ttl,
            is_available: age <= self.lifetimes.max_stale,
        })
    }

    /// For how long the copy of `kind` has been too old to be served; `None` when none is held, or it can
    /// be served.
    pub(crate) fn too_old_for(&self, kind: Kind, now: Instant) -> Option<Duration> {
        self.condition(kind, now)?.age.checked_sub(self.lifetimes.max_stale)
    }

    /// Whether a request for `kind` that finds `copy` is served without another look.
    pub(crate) fn suffices(&self, kind: Kind, copy: &FoundCopy) -> bool {
        let revalidate = self.lifetimes.revalidate;
        kind != Kind::Jwks || revalidate.is_none_or(|revalidate| copy.age <= revalidate)
    }

    /// This snapshot with another copy of `kind`, and whether the copy's bytes differ from before.
    pub(crate) fn with(
        &self,
        kind: Kind,
        representation: Representation,
        confirmed: Confirmed,
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

    pub(super) const fn held(&self, kind: Kind) -> Option<&Held> {
        match kind {
            Kind::Discovery => self.discovery.as_ref(),
            Kind::Jwks => self.jwks.as_ref(),
        }
    }
}

/// The state of a copy that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Since upstream last confirmed it.
    pub(crate) age: Duration,
    /// Older than `CACHE_TTL_SECONDS`.
    pub(crate) is_stale: bool,
    /// Not older than `MAX_STALE_SECONDS`: it can be served.
    pub(crate) is_available: bool,
}
