//! Decides the answer to a request on the public listener, and to a probe on either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use log::Level;

use crate::cache::{Cache, FoundCopy, Snapshot, Unavailable, View};
use crate::documents::Kind;
use crate::http::Request;
use crate::http::answer::{self, Answer, Freshness};
use crate::http::routes::{self, OTHER, Probe, Resource, Route};
use crate::reason::Reason;

/// What the workers of both listeners share.
pub(crate) struct Site {
    cache: Arc<Cache>,
    client_lifetimes: ClientLifetimes,
    stopping: AtomicBool,
}

/// How long clients may keep a copy.
#[derive(Clone, Copy)]
pub(crate) struct ClientLifetimes {
    /// The longest `max-age`.
    pub(crate) private: Duration,
    /// The longest `s-maxage`, for the key set.
    pub(crate) shared: Duration,
}

/// An answer, and what its access line says.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) level: Level,
    /// [`Route::name`].
    pub(crate) route: &'static str,
    /// `None` for an answer without a document.
    pub(crate) copy: Option<Served>,
}

/// What an access line says about the copy that was served.
pub(crate) struct Served {
    /// The request did not wait for it.
    pub(crate) is_hit: bool,
    pub(crate) age: Duration,
    pub(crate) is_stale: bool,
}

pub(crate) const fn without_copy(answer: Answer, level: Level) -> Answered {
    Answered { answer, level, route: OTHER, copy: None }
}

impl Site {
    pub(crate) const fn new(cache: Arc<Cache>, client_lifetimes: ClientLifetimes) -> Self {
        Self { cache, client_lifetimes, stopping: AtomicBool::new(false) }
    }

    /// From now on `/readyz` says 503, and every answer has `Connection: close`.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The answer of the public listener. `before_waiting` is called before it waits for upstream.
    pub(crate) fn public(
        &self,
        request: &Request<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answered {
        let snapshot = self.cache.snapshot();
        let route = routes::public(request.method, request.path, &snapshot.paths);
        let answered = match route {
            Route::Get(Resource::Document(kind)) => {
                self.document(kind, &snapshot, request, before_waiting)
            }
            Route::Get(Resource::UnknownIssuer(_)) => {
                self.unknown_issuer(&snapshot, request, before_waiting)
            }
            Route::Get(Resource::Probe(probe)) => self.probe(probe, request),
            Route::Preflight(_) => {
                without_copy(answer::preflight(request, SystemTime::now()), Level::Info)
            }
            Route::MethodNotAllowed(_) => method_not_allowed(request),
            Route::Get(Resource::Metrics | Resource::Status) | Route::NotFound => {
                not_found(request)
            }
        };
        Answered { route: route.name(), ..answered }
    }

    fn document(
        &self,
        kind: Kind,
        snapshot: &Snapshot,
        request: &Request<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answered {
        match self.cache.obtain(kind, snapshot, before_waiting) {
            Ok(copy) => self.answer_with(kind, &copy, request),
            Err(error) => unavailable(error, request),
        }
    }

    fn answer_with(&self, kind: Kind, copy: &FoundCopy, request: &Request<'_>) -> Answered {
        let &FoundCopy { age, max_age, is_stale, is_hit, .. } = copy;
        let ClientLifetimes { private, shared } = self.client_lifetimes;
        let freshness = Freshness {
            age,
            client_cache_ttl: max_age.map_or(private, |max_age| max_age.min(private)),
            shared_cache_ttl: (kind == Kind::Jwks).then(|| shared.min(private)),
            now: SystemTime::now(),
        };
        let answer = answer::document(&copy.representation, request, &freshness);
        let copy = Some(Served { is_hit, age, is_stale });
        Answered { answer, level: Level::Info, route: kind.name(), copy }
    }

    /// No issuer is known yet, and the path may be below it: waits for the round in progress, and
    /// routes the request again.
    fn unknown_issuer(
        &self,
        snapshot: &Snapshot,
        request: &Request<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answered {
        if let Err(error) = self.cache.obtain(Kind::Discovery, snapshot, before_waiting) {
            return unavailable(error, request);
        }
        let snapshot = self.cache.snapshot();
        let route = routes::public(request.method, request.path, &snapshot.paths);
        match route {
            Route::Get(Resource::Document(kind)) => {
                self.document(kind, &snapshot, request, before_waiting)
            }
            Route::MethodNotAllowed(_) => method_not_allowed(request),
            Route::Get(_) | Route::Preflight(_) | Route::NotFound => not_found(request),
        }
    }

    /// The answer to a probe.
    pub(crate) fn probe(&self, probe: Probe, request: &Request<'_>) -> Answered {
        let now = SystemTime::now();
        let answer = match self.probe_result(probe) {
            Ok(()) => answer::probe(request, now, 200, "ok\n"),
            Err((state, reason)) => {
                answer::probe(request, now, 503, &format!("{state}: {}\n", reason.word()))
            }
        };
        without_copy(answer, Level::Debug)
    }

    /// The result of a probe, which never waits for upstream.
    fn probe_result(&self, probe: Probe) -> Result<(), (&'static str, Reason)> {
        match probe {
            Probe::Livez => Ok(()),
            Probe::Readyz => self.ready().map_err(|reason| ("not ready", reason)),
            Probe::Healthz => self.healthy().map_err(|reason| ("unhealthy", reason)),
        }
    }

    /// Whether both documents can be served, and the program is not stopping: what `/readyz` says.
    pub(crate) fn ready(&self) -> Result<(), Reason> {
        if self.is_stopping() { Err(Reason::Stopping) } else { self.cache.ready() }
    }

    /// Whether the last fetches succeeded and nothing else is wrong: what `/healthz` says. Requests a round when
    /// the last one is too old to tell.
    pub(crate) fn healthy(&self) -> Result<(), Reason> {
        self.cache.healthy()
    }

    /// What is held and was observed, for the pages of the admin listener.
    pub(crate) fn view(&self) -> View {
        self.cache.view()
    }
}

fn unavailable(error: Unavailable, request: &Request<'_>) -> Answered {
    let Unavailable { reason, retry_after } = error;
    let answer = answer::unavailable(request, SystemTime::now(), reason, retry_after);
    without_copy(answer, Level::Info)
}

pub(crate) fn method_not_allowed(request: &Request<'_>) -> Answered {
    without_copy(answer::method_not_allowed(request, SystemTime::now()), Level::Info)
}

pub(crate) fn not_found(request: &Request<'_>) -> Answered {
    without_copy(answer::text(request, SystemTime::now(), 404, "not found\n"), Level::Info)
}
