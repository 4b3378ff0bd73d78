//! Decides the answer to a request on the admin listener: the probes of the public one, `/metrics` and `/status`.
//!
//! It is a port to which a network policy can restrict access. It serves no document.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, error};

use crate::exposition;
use crate::front::{Report, Reporter};
use crate::http::Request;
use crate::http::answer;
use crate::http::routes::{self, Resource, Route};
use crate::logging;
use crate::metrics::Metrics;
use crate::process::Usage;
use crate::site::{Answered, Site, method_not_allowed, not_found, without_copy};
use crate::status;

/// How long a front may take to report for `/metrics`. With one that hangs, its series are left out, and
/// the kubelet's probes, which the same workers answer, wait no longer than this for each scraper.
const REPORT_TIMEOUT: Duration = Duration::from_millis(200);
/// `Content-Type` of `/status`.
const JSON: &str = "application/json";

/// What the workers of the admin listener share.
pub(crate) struct Admin {
    site: Arc<Site>,
    metrics: Arc<Metrics>,
    /// By the name of the listener.
    fronts: Vec<(&'static str, Reporter)>,
    /// Names and values of the settings that differ from their defaults.
    settings: Vec<(&'static str, String)>,
    started: SystemTime,
}

impl Admin {
    pub(crate) const fn new(
        site: Arc<Site>,
        metrics: Arc<Metrics>,
        fronts: Vec<(&'static str, Reporter)>,
        settings: Vec<(&'static str, String)>,
        started: SystemTime,
    ) -> Self {
        Self { site, metrics, fronts, settings, started }
    }

    /// The answer of the admin listener. `before_waiting` is called before it waits for the fronts.
    pub(crate) fn answer(
        &self,
        request: &Request<'_>,
        before_waiting: &mut dyn FnMut(),
    ) -> Answered {
        let route = routes::admin(request.method, request.path);
        let answered = match route {
            Route::Get(Resource::Probe(probe)) => self.site.probe(probe, request),
            Route::Get(Resource::Metrics) => self.metrics(request, before_waiting),
            Route::Get(Resource::Status) => page(request, JSON, &self.status()),
            Route::MethodNotAllowed(_) => method_not_allowed(request),
            Route::Get(Resource::Document(_) | Resource::UnknownIssuer(_))
            | Route::Preflight(_)
            | Route::NotFound => not_found(request),
        };
        Answered { route: route.name(), ..answered }
    }

    fn metrics(&self, request: &Request<'_>, before_waiting: &mut dyn FnMut()) -> Answered {
        before_waiting();
        let reports = self.reports();
        let facts = exposition::Facts {
            view: &self.site.view(),
            is_ready: self.site.ready().is_ok(),
            fronts: &reports,
            usage: &Usage::now(),
            panics: logging::panics(),
            now: Instant::now(),
        };
        match exposition::page(&self.metrics, &facts) {
            Ok(text) => page(request, exposition::CONTENT_TYPE, &text),
            Err(error) => {
                error!(error:%; "/metrics cannot be written, which is a bug in this program");
                let answer = answer::text(request, SystemTime::now(), 500, "internal error\n");
                without_copy(answer, Level::Info)
            }
        }
    }

    fn reports(&self) -> Vec<(&'static str, Report)> {
        let reports = self.fronts.iter();
        reports
            .filter_map(|(name, reporter)| Some((*name, reporter.report(REPORT_TIMEOUT)?)))
            .collect()
    }

    fn status(&self) -> String {
        status::page(&status::Facts {
            started: self.started,
            settings: &self.settings,
            view: &self.site.view(),
            ready: self.site.ready(),
            healthy: self.site.healthy(),
            now: Instant::now(),
            date: SystemTime::now(),
        })
    }
}

/// As probes, it is logged at `debug`: a scraper asks every few seconds.
fn page(request: &Request<'_>, content_type: &str, text: &str) -> Answered {
    let answer = answer::page(request, SystemTime::now(), content_type, text);
    without_copy(answer, Level::Debug)
}
