//! What is answered, on either listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use log::Level;

use crate::cache::{Cache, Copy, Shown, Unavailable};
use crate::documents::Kind;
use crate::http::reply::{self, Asked, Freshness, Reply};
use crate::http::routes::{self, Probe, Resource, Route};
use crate::reason::Reason;

/// What the workers of both listeners share.
pub(crate) struct Site {
    pub(crate) cache: Arc<Cache>,
    client_cache_ttl: Duration,
    stopping: AtomicBool,
}

/// An answer and what the access line says of it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) level: Level,
    /// `cache_hit` and age of the copy that was served.
    pub(crate) copy: Option<(bool, Duration)>,
}

impl Answer {
    /// An answer that no copy of a document went into.
    const fn without_copy(reply: Reply, level: Level) -> Self {
        Self { reply, level, copy: None }
    }
}

impl Site {
    pub(crate) const fn new(cache: Arc<Cache>, client_cache_ttl: Duration) -> Self {
        Self { cache, client_cache_ttl, stopping: AtomicBool::new(false) }
    }

    /// From now on `/readyz` says 503 and every answer asks its client to close.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The answer of the public listener; `before_waiting` is called when it has to wait for
    /// upstream.
    pub(crate) fn answer(&self, asked: &Asked<'_>, before_waiting: &mut dyn FnMut()) -> Answer {
        let now = SystemTime::now();
        let shown = self.cache.shown();
        let route = routes::public(asked.method, asked.path, &shown.paths);
        match route {
            Route::Get(Resource::Document(kind)) => {
                self.document(kind, &shown, asked, before_waiting)
            }
            Route::Get(Resource::UnknownIssuer) => {
                self.of_unknown_issuer(&shown, asked, before_waiting)
            }
            Route::Get(Resource::Probe(probe)) => {
                Answer::without_copy(self.probe(probe, asked), Level::Debug)
            }
            Route::Preflight => Answer::without_copy(reply::preflight(asked, now), Level::Info),
            Route::MethodNotAllowed { .. } | Route::NotFound => self.refuse(route, asked),
        }
    }

    /// The answer of the admin listener.
    pub(crate) fn admin(&self, asked: &Asked<'_>) -> Answer {
        let route = routes::admin(asked.method, asked.path);
        match route {
            Route::Get(Resource::Probe(probe)) => {
                Answer::without_copy(self.probe(probe, asked), Level::Debug)
            }
            Route::Get(_) | Route::Preflight | Route::MethodNotAllowed { .. } | Route::NotFound => {
                self.refuse(route, asked)
            }
        }
    }

    /// The answer to what leads to nothing, on either listener.
    pub(crate) fn refuse(&self, route: Route, asked: &Asked<'_>) -> Answer {
        let now = SystemTime::now();
        let reply = match route {
            Route::MethodNotAllowed { allow } => reply::method_not_allowed(asked, now, allow),
            Route::Get(_) | Route::Preflight | Route::NotFound => {
                reply::text(asked, now, 404, "not found\n")
            }
        };
        Answer::without_copy(reply, Level::Info)
    }

    fn document(
        &self,
        kind: Kind,
        shown: &Shown,
        asked: &Asked<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answer {
        match self.cache.obtain(kind, shown, before_waiting) {
            Ok(copy) => self.copy(&copy, asked),
            Err(unavailable) => self.unavailable(unavailable, asked),
        }
    }

    fn copy(&self, copy: &Copy, asked: &Asked<'_>) -> Answer {
        let fresh = Freshness {
            age: copy.age,
            client_cache_ttl: self.client_cache_ttl,
            now: SystemTime::now(),
        };
        let reply = reply::document(&copy.document, asked, &fresh);
        Answer { reply, level: Level::Info, copy: Some((copy.cache_hit, copy.age)) }
    }

    fn unavailable(&self, unavailable: Unavailable, asked: &Asked<'_>) -> Answer {
        let Unavailable { why, retry_after } = unavailable;
        let reply = reply::unavailable(asked, SystemTime::now(), why, retry_after);
        Answer::without_copy(reply, Level::Info)
    }

    /// The path may be one of an issuer that the round under way is about to name.
    fn of_unknown_issuer(
        &self,
        shown: &Shown,
        asked: &Asked<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answer {
        if let Err(unavailable) = self.cache.obtain(Kind::Discovery, shown, before_waiting) {
            return self.unavailable(unavailable, asked);
        }
        let shown = self.cache.shown();
        let route = routes::public(asked.method, asked.path, &shown.paths);
        match route {
            Route::Get(Resource::Document(kind)) => {
                self.document(kind, &shown, asked, before_waiting)
            }
            Route::Get(_) | Route::Preflight | Route::MethodNotAllowed { .. } | Route::NotFound => {
                self.refuse(route, asked)
            }
        }
    }

    /// The answer to a probe, on either listener. It never waits for upstream.
    pub(crate) fn probe(&self, probe: Probe, asked: &Asked<'_>) -> Reply {
        let (state, says) = match probe {
            Probe::Livez => (Ok(()), ""),
            Probe::Readyz if self.is_stopping() => (Err(Reason::Stopping), "not ready"),
            Probe::Readyz => (self.cache.ready(), "not ready"),
            Probe::Healthz => (self.cache.healthy(), "unhealthy"),
        };
        let now = SystemTime::now();
        match state {
            Ok(()) => reply::text(asked, now, 200, "ok\n"),
            Err(why) => reply::text(asked, now, 503, &format!("{says}: {}\n", why.word())),
        }
    }
}
