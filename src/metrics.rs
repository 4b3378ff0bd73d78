//! What the program counts for `/metrics`: requests and fetches, as they happen.
//!
//! What is there when it is asked for, such as the age of a copy, is not counted here: see `exposition`.
//! The names and labels are an interface: docs/metrics.md has them all. Counting a request takes some 100 ns
//! (`make metrics-cost`). Threads that count at the same time hinder each other; of the workers of a listener
//! one leads at a time.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets,
};

use crate::documents::Kind;
use crate::http::routes::{OTHER, Resource};
use crate::reason::Reason;

/// What all names begin with.
pub(crate) const NAMESPACE: &str = "kube_issuer_gateway";
/// The outcome of a fetch that brought a document.
const SUCCESS: &str = "success";
/// From 16 µs, which an answer from the cache takes at most, by factors of four to 67 s: one may wait for
/// fetches.
const REQUEST_BUCKETS: (f64, f64, usize) = (0.000_016, 4.0, 12);
/// From 4 ms, which a fetch inside a cluster takes, by factors of two to 65 s: `UPSTREAM_TIMEOUT_SECONDS` is
/// 60 s at most.
const FETCH_BUCKETS: (f64, f64, usize) = (0.004, 2.0, 15);

/// The counters and histograms of this process. Any thread may count.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// By route. They are looked up here, because by labels it costs twice as much.
    request_durations: Vec<(&'static str, Histogram)>,
    stale_responses: IntCounterVec,
    fetches: IntCounterVec,
    discovery_duration: Histogram,
    jwks_duration: Histogram,
}

/// A request that was answered.
#[derive(Clone, Copy)]
pub(crate) struct AnsweredRequest<'a> {
    /// [`Route::name`](crate::http::routes::Route::name).
    pub(crate) route: &'static str,
    pub(crate) method: &'a str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    /// The document is older than `CACHE_TTL_SECONDS`.
    pub(crate) is_stale: bool,
}

impl Metrics {
    /// An error when a name is not valid, or used twice.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = counter(
            &registry,
            "http_requests_total",
            "Requests that were answered, on both listeners.",
            &["route", "method", "status"],
        )?;
        let request_durations = histogram(
            &registry,
            "http_request_duration_seconds",
            "From the moment a worker receives a request until its answer is made.",
            REQUEST_BUCKETS,
            "route",
        )?;
        let stale_responses = counter(
            &registry,
            "stale_responses_total",
            "Answers with a copy older than CACHE_TTL_SECONDS.",
            &["document"],
        )?;
        let fetches = counter(
            &registry,
            "fetches_total",
            "Requests for a document to the API server: success, or why it failed.",
            &["document", "outcome"],
        )?;
        let fetch_durations = histogram(
            &registry,
            "fetch_duration_seconds",
            "How long requests for a document to the API server took, retries included.",
            FETCH_BUCKETS,
            "document",
        )?;
        for kind in [Kind::Discovery, Kind::Jwks] {
            stale_responses.with_label_values(&[kind.name()]);
            fetches.with_label_values(&[kind.name(), SUCCESS]);
        }
        let routes = Resource::NAMES.into_iter().chain([OTHER]);
        let request_durations =
            routes.map(|route| (route, request_durations.with_label_values(&[route]))).collect();
        Ok(Self {
            registry,
            requests,
            request_durations,
            stale_responses,
            fetches,
            discovery_duration: fetch_durations.with_label_values(&[Kind::Discovery.name()]),
            jwks_duration: fetch_durations.with_label_values(&[Kind::Jwks.name()]),
        })
    }

    /// Counts a request.
    pub(crate) fn answered(&self, request: AnsweredRequest<'_>) {
        let AnsweredRequest { route, method, status, duration, is_stale } = request;
        let labels = [route, method_name(method), status_name(status)];
        self.requests.with_label_values(&labels).inc();
        if let Some((_, histogram)) = self.request_durations.iter().find(|(of, _)| *of == route) {
            histogram.observe(duration.as_secs_f64());
        }
        if is_stale {
            self.stale_responses.with_label_values(&[route]).inc();
        }
    }

    /// Counts a fetch; `failure` is why it failed.
    pub(crate) fn fetched(&self, kind: Kind, failure: Option<Reason>) {
        let outcome = failure.map_or(SUCCESS, Reason::word);
        self.fetches.with_label_values(&[kind.name(), outcome]).inc();
    }

    /// Notes how long a fetch took.
    pub(crate) fn fetch_took(&self, kind: Kind, duration: Duration) {
        let histogram = match kind {
            Kind::Discovery => &self.discovery_duration,
            Kind::Jwks => &self.jwks_duration,
        };
        histogram.observe(duration.as_secs_f64());
    }

    /// The values now.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counter = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
    registered(registry, counter)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    (first, factor, count): (f64, f64, usize),
    label: &str,
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, help)
        .namespace(NAMESPACE)
        .buckets(exponential_buckets(first, factor, count)?);
    registered(registry, HistogramVec::new(options, &[label])?)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// A closed list: the methods that clients may use.
fn method_name(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => OTHER,
    }
}

/// A closed list: the statuses that workers answer with.
const fn status_name(status: u16) -> &'static str {
    match status {
        200 => "200",
        204 => "204",
        304 => "304",
        404 => "404",
        405 => "405",
        502 => "502",
        503 => "503",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus::TextEncoder;

    use super::*;

    const REQUEST: AnsweredRequest<'_> = AnsweredRequest {
        route: "jwks",
        method: "GET",
        status: 200,
        duration: Duration::from_micros(12),
        is_stale: false,
    };

    fn text(metrics: &Metrics) -> String {
        TextEncoder::new().encode_to_string(&metrics.gather()).unwrap()
    }

    #[test]
    fn what_a_client_chooses_makes_no_series_of_its_own() {
        let metrics = Metrics::new().unwrap();
        let lines = text(&metrics).lines().count();
        for number in 0..1000 {
            let method = format!("M{number}");
            metrics.answered(AnsweredRequest { method: &method, status: number, ..REQUEST });
        }
        let text = text(&metrics);
        assert!(text.contains(r#"{method="other",route="jwks",status="other"} 993"#), "{text}");
        // The metric is there only since the first request: two lines about it.
        assert_eq!(text.lines().count(), lines + 8 + 2);
    }

    #[test]
    fn series_that_are_waited_for_are_there_before_they_count() {
        let text = text(&Metrics::new().unwrap());
        for series in [
            r#"kube_issuer_gateway_fetches_total{document="discovery",outcome="success"} 0"#,
            r#"kube_issuer_gateway_fetches_total{document="jwks",outcome="success"} 0"#,
            r#"kube_issuer_gateway_stale_responses_total{document="jwks"} 0"#,
            r#"kube_issuer_gateway_fetch_duration_seconds_count{document="jwks"} 0"#,
            r#"kube_issuer_gateway_http_request_duration_seconds_count{route="other"} 0"#,
        ] {
            assert!(text.contains(series), "{series}: {text}");
        }
    }

    /// `make metrics-cost`: not a test, but a measurement.
    #[test]
    #[ignore = "prints a time, and asserts nothing"]
    fn cost_of_a_request() {
        const REQUESTS: u32 = 2_000_000;
        let metrics = Metrics::new().unwrap();
        for threads in [1, 2] {
            let mut rounds: Vec<_> = (0..15)
                .map(|_| {
                    let started = Instant::now();
                    std::thread::scope(|scope| {
                        for _ in 0..threads {
                            scope.spawn(|| (0..REQUESTS).for_each(|_| metrics.answered(REQUEST)));
                        }
                    });
                    started.elapsed().as_nanos() / u128::from(REQUESTS)
                })
                .collect();
            rounds.sort_unstable();
            println!(
                "{threads} thread(s): {} ns a request (least {}, most {}; 15 rounds of {REQUESTS})",
                rounds[7], rounds[0], rounds[14]
            );
        }
    }
}
