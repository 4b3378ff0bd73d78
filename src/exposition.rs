//! Pure: the page `/metrics`, in Prometheus's text format 0.0.4 (Prometheus docs, "Exposition formats").
//!
//! What was counted comes from `metrics`; the rest is what there is now. docs/metrics.md has all names and labels.
//! What comes from upstream is bounded here: a bad key set or CA file makes no endless page.

use std::time::{Duration, Instant, SystemTime};

use prometheus::{Counter, Error, Gauge, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::cache::View;
use crate::documents::Kind;
use crate::front::{Counts, Report};
use crate::logging::line::printable;
use crate::metrics::{Metrics, NAMESPACE};
use crate::observed::{OwnTokenState, ServedKey};
use crate::process::Usage;
use crate::upstream::{Subject, Validity};

/// `Content-Type` of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The most keys with a series each. A cluster has two or three, and during a rotation one more.
const MOST_KEYS: usize = 64;
/// The most CAs with a series each: those that expire first.
const MOST_CAS: usize = 32;

/// What there is now.
pub(crate) struct Facts<'a> {
    pub(crate) now: Instant,
    pub(crate) view: &'a View,
    /// `/readyz` says 200.
    pub(crate) is_ready: bool,
    /// By the name of the listener; without one that does not report.
    pub(crate) fronts: &'a [(&'static str, Report)],
    pub(crate) usage: &'a Usage,
    pub(crate) panics: u64,
}

/// The page.
pub(crate) fn page(metrics: &Metrics, facts: &Facts<'_>) -> Result<String, Error> {
    let mut families = metrics.gather();
    let registry = Registry::new();
    add_program(&registry, facts)?;
    add_fronts(&registry, facts.fronts)?;
    add_documents(&registry, facts)?;
    add_keys(&registry, facts.view)?;
    add_validities(&registry, facts.view)?;
    add_process(&registry, facts.usage)?;
    families.extend(registry.gather());
    TextEncoder::new().encode_to_string(&families)
}

/// The values of a metric, each with the values of its labels.
type Rows<'a, T> = Vec<(Vec<&'a str>, T)>;

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    rows: Rows<'_, f64>,
) -> Result<(), Error> {
    let gauge = GaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
    for (values, value) in rows {
        gauge.get_metric_with_label_values(&values)?.set(value);
    }
    registry.register(Box::new(gauge))
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    rows: Rows<'_, u64>,
) -> Result<(), Error> {
    let counter = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
    for (values, value) in rows {
        counter.get_metric_with_label_values(&values)?.inc_by(value);
    }
    registry.register(Box::new(counter))
}

fn add_program(registry: &Registry, facts: &Facts<'_>) -> Result<(), Error> {
    let Facts { view, is_ready, panics, .. } = facts;
    let version = vec![env!("CARGO_PKG_VERSION")];
    gauge(registry, "build_info", "Always 1.", &["version"], vec![(version, 1.0)])?;
    let help = "1 while /readyz says 200.";
    gauge(registry, "ready", help, &[], vec![(vec![], truth(*is_ready))])?;
    let help = "Bugs in the program or a library, each survived.";
    counter(registry, "panics_total", help, &[], vec![(vec![], *panics)])?;
    let help = "1 while the issuer is not ISSUER.";
    let mismatch = truth(view.observed.issuer_mismatch);
    gauge(registry, "issuer_mismatch", help, &[], vec![(vec![], mismatch)])?;
    let help = "1 for the state of the own-token check, 0 for the others.";
    let state = view.observed.own_token;
    let states = OwnTokenState::ALL.map(|it| (vec![it.word()], truth(it == state)));
    gauge(registry, "own_token", help, &["state"], states.into())
}

fn add_fronts(registry: &Registry, fronts: &[(&'static str, Report)]) -> Result<(), Error> {
    let by_listener = |value: fn(&Report) -> usize| {
        fronts.iter().map(|(name, report)| (vec![*name], number(value(report)))).collect()
    };
    let labels = ["listener"];
    let open = by_listener(|report| report.open);
    gauge(registry, "connections", "Open connections.", &labels, open)?;
    let help = "The most connections that may be open at one time.";
    gauge(registry, "connections_limit", help, &labels, by_listener(|report| report.limit))?;
    let accepted = fronts.iter().map(|(name, it)| (vec![*name], it.counts.accepted)).collect();
    let help = "Connections that were accepted.";
    counter(registry, "connections_accepted_total", help, &labels, accepted)?;

    let mut closed = Vec::new();
    let mut refused = Vec::new();
    let statuses: Vec<Vec<String>> = fronts
        .iter()
        .map(|(_, report)| report.counts.refused.keys().map(u16::to_string).collect())
        .collect();
    for ((name, report), statuses) in fronts.iter().zip(&statuses) {
        let Counts { evicted, unread, unanswered, rejected, .. } = &report.counts;
        for (reason, count) in [
            ("evicted", evicted),
            ("unread", unread),
            ("unanswered", unanswered),
            ("rejected", rejected),
        ] {
            closed.push((vec![*name, reason], *count));
        }
        for (status, count) in statuses.iter().zip(report.counts.refused.values()) {
            refused.push((vec![*name, status.as_str()], *count));
        }
    }
    let help = "Connections that the gateway closed to protect itself.";
    counter(registry, "connections_closed_total", help, &["listener", "reason"], closed)?;
    let help = "Requests that were refused before a worker saw them.";
    counter(registry, "requests_refused_total", help, &["listener", "status"], refused)
}

fn add_documents(registry: &Registry, facts: &Facts<'_>) -> Result<(), Error> {
    let (mut ages, mut stale, mut available, mut disagree) = (vec![], vec![], vec![], vec![]);
    for kind in [Kind::Discovery, Kind::Jwks] {
        let condition = facts.view.snapshot.condition(kind, facts.now);
        ages.extend(condition.map(|it| (vec![kind.name()], it.age.as_secs_f64())));
        stale.push((vec![kind.name()], truth(condition.is_some_and(|it| it.is_stale))));
        available.push((vec![kind.name()], truth(condition.is_some_and(|it| it.is_available))));
        let disagreement = facts.view.observed.disagreement.about(kind, facts.now);
        disagree.push((vec![kind.name()], truth(disagreement)));
    }
    let labels = ["document"];
    let help = "Since the API server last confirmed the copy.";
    gauge(registry, "document_age_seconds", help, &labels, ages)?;
    let help = "1 while the copy is older than CACHE_TTL_SECONDS.";
    gauge(registry, "document_stale", help, &labels, stale)?;
    let help = "1 while the document can be served.";
    gauge(registry, "document_available", help, &labels, available)?;
    let help = "1 while API servers publish different versions in turn.";
    gauge(registry, "api_servers_disagree", help, &labels, disagree)
}

fn add_keys(registry: &Registry, view: &View) -> Result<(), Error> {
    let served = &view.observed.keys;
    let count = number(served.keys.len());
    gauge(registry, "keys", "Keys that are served.", &[], vec![(vec![], count)])?;
    add_first_seen(registry, &served.keys)?;
    let help = "How often other keys were served than before.";
    counter(registry, "key_set_changes_total", help, &[], vec![(vec![], served.changes)])?;
    let help = "Since when this process has served the present keys.";
    let since = served.since.map(|since| (vec![], timestamp(since)));
    let name = "key_set_changed_timestamp_seconds";
    gauge(registry, name, help, &[], since.into_iter().collect())
}

/// Each key is a gauge of its own: `GaugeVec` takes two for one when their labels, joined without a separator,
/// are equal. Of several keys with the same labels the one that was seen first counts.
fn add_first_seen(registry: &Registry, keys: &[ServedKey]) -> Result<(), Error> {
    let mut keys: Vec<_> = keys.iter().take(MOST_KEYS).collect();
    keys.sort_by_key(|key| key.first_seen);
    for key in keys {
        let help = "Since when this process has served the key without a break.";
        let gauge = Gauge::with_opts(
            Opts::new("key_first_seen_timestamp_seconds", help)
                .namespace(NAMESPACE)
                .const_label("kid", printable(key.kid.as_deref().unwrap_or_default()))
                .const_label("algorithm", printable(&key.algorithm)),
        )?;
        gauge.set(timestamp(key.first_seen));
        match registry.register(Box::new(gauge)) {
            Ok(()) | Err(Error::AlreadyReg) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn add_validities(registry: &Registry, view: &View) -> Result<(), Error> {
    let mut validities = view.observed.validities.clone();
    validities.sort_by_key(|(subject, validity)| (subject.block().is_some(), validity.not_after));
    let others = validities.iter().filter(|(subject, _)| subject.block().is_none()).count();
    validities.truncate(others + MOST_CAS);
    let block = |subject: &Subject| subject.block().map(|it| it.to_string()).unwrap_or_default();
    let labels: Vec<_> =
        validities.iter().map(|(subject, _)| (subject.word(), block(subject))).collect();
    let rows = |time: fn(&Validity) -> SystemTime| {
        let labelled = labels.iter().zip(&validities);
        let row = labelled.map(|((subject, block), (_, validity))| {
            (vec![*subject, block.as_str()], timestamp(time(validity)))
        });
        row.collect()
    };
    let names = ["subject", "block"];
    let help = "When it expires.";
    gauge(registry, "expiry_timestamp_seconds", help, &names, rows(|it| it.not_after))?;
    let help = "From when on it is overdue for renewal.";
    gauge(registry, "renewal_due_timestamp_seconds", help, &names, rows(|it| it.renewal_due))
}

/// By the names that all Prometheus clients use.
fn add_process(registry: &Registry, usage: &Usage) -> Result<(), Error> {
    let count = |count: Option<u64>| count.map(number);
    let cpu = Counter::new(
        "process_cpu_seconds_total",
        "CPU time, of the program and of the kernel for it.",
    )?;
    if let Some(time) = usage.cpu_time {
        cpu.inc_by(time.as_secs_f64());
        registry.register(Box::new(cpu))?;
    }
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", count(usage.resident_bytes)),
        ("process_virtual_memory_bytes", "Virtual memory.", count(usage.virtual_bytes)),
        ("process_threads", "Threads.", count(usage.threads)),
        ("process_open_fds", "Open descriptors.", count(usage.open_descriptors)),
        ("process_max_fds", "The soft limit of descriptors.", count(usage.max_descriptors)),
        ("process_start_time_seconds", "When it started.", usage.started.map(timestamp)),
    ] {
        let Some(value) = value else { continue };
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

fn truth(is_true: bool) -> f64 {
    f64::from(u8::from(is_true))
}

/// Exact up to 2^53.
#[expect(clippy::as_conversions, reason = "there is no other way, and a sample is a float")]
fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::INFINITY, |count| count as f64)
}

/// Seconds since the epoch.
fn timestamp(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::cache::{Cache, Confirmed, Lifetimes};
    use crate::http::representation::Representation;
    use crate::http::routes::Paths;
    use crate::observed::{Disagreement, Observed, ServedKeys};
    use crate::upstream::Place;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + S * seconds
    }

    /// The lines of the page that are no comments, without the prefix of our own names; half a second after a
    /// fetch that brought the discovery document alone.
    fn lines(observed: Observed, fronts: &[(&'static str, Report)], usage: &Usage) -> Vec<String> {
        let now = Instant::now();
        let lifetimes = Lifetimes { cache_ttl: S / 4, max_stale: S, revalidate: None };
        let cache = Cache::new(lifetimes, 2, Paths::default());
        let representation = Representation::new(Kind::Discovery, b"{}".to_vec());
        let confirmed = Confirmed { at: now, max_age: None };
        cache.store(Kind::Discovery, representation, confirmed, None);
        cache.set_observed(Arc::new(observed));
        let view = &cache.view();
        let now = now + S / 2;
        let facts = Facts { now, view, is_ready: true, fronts, usage, panics: 2 };
        let text = page(&Metrics::new().unwrap(), &facts).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.strip_prefix("kube_issuer_gateway_").unwrap_or(line).to_owned())
            .collect()
    }

    #[track_caller]
    fn holds(lines: &[String], expected: &[&str]) {
        for line in expected {
            assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
        }
    }

    #[test]
    fn what_was_observed_is_there_with_its_labels() {
        let key = |kid: &str, seconds| ServedKey {
            kid: Some(kid.to_owned()),
            algorithm: "ES256".to_owned(),
            first_seen: at(seconds),
            is_listed: true,
        };
        let keys = vec![key("a", 7), key("b", 9), key("b", 8)];
        let validity = Validity { not_after: at(60), renewal_due: at(40) };
        let ca = Subject::Anchor(Place { block: 3, line: 41 });
        let observed = Observed {
            issuer_mismatch: true,
            own_token: OwnTokenState::Verified,
            disagreement: Disagreement { discovery: None, jwks: Some(Instant::now() + S * 60) },
            keys: ServedKeys { keys, changes: 4, since: Some(at(9)) },
            validities: vec![(Subject::Token, validity), (ca, validity)],
            ..Observed::default()
        };
        let version = format!("build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        let lines = lines(observed, &[], &Usage::default());
        let expected = [
            &*version,
            "ready 1",
            "panics_total 2",
            "issuer_mismatch 1",
            r#"own_token{state="verified"} 1"#,
            r#"own_token{state="failed"} 0"#,
            r#"document_age_seconds{document="discovery"} 0.5"#,
            r#"document_stale{document="discovery"} 1"#,
            r#"document_stale{document="jwks"} 0"#,
            r#"document_available{document="discovery"} 1"#,
            r#"document_available{document="jwks"} 0"#,
            r#"api_servers_disagree{document="discovery"} 0"#,
            r#"api_servers_disagree{document="jwks"} 1"#,
            "keys 3",
            r#"key_first_seen_timestamp_seconds{algorithm="ES256",kid="a"} 7"#,
            // Of two with the same labels the one that was seen first.
            r#"key_first_seen_timestamp_seconds{algorithm="ES256",kid="b"} 8"#,
            "key_set_changes_total 4",
            "key_set_changed_timestamp_seconds 9",
            r#"expiry_timestamp_seconds{block="",subject="token"} 60"#,
            r#"expiry_timestamp_seconds{block="3",subject="ca"} 60"#,
            r#"renewal_due_timestamp_seconds{block="3",subject="ca"} 40"#,
        ];
        holds(&lines, &expected);
    }

    #[test]
    fn each_front_and_the_process_are_counted() {
        let counts = Counts {
            accepted: 9,
            refused: BTreeMap::from([(414, 5)]),
            evicted: 1,
            unread: 2,
            unanswered: 3,
            rejected: 4,
        };
        let report = Report { is_quiet: true, last_accepted: None, open: 6, limit: 30, counts };
        let usage = Usage {
            cpu_time: Some(S * 3 / 2),
            resident_bytes: Some(4096),
            started: Some(at(50)),
            ..Usage::default()
        };
        let lines = lines(Observed::default(), &[("public", report)], &usage);
        let expected = [
            r#"connections{listener="public"} 6"#,
            r#"connections_limit{listener="public"} 30"#,
            r#"connections_accepted_total{listener="public"} 9"#,
            r#"connections_closed_total{listener="public",reason="evicted"} 1"#,
            r#"connections_closed_total{listener="public",reason="rejected"} 4"#,
            r#"requests_refused_total{listener="public",status="414"} 5"#,
            "process_cpu_seconds_total 1.5",
            "process_resident_memory_bytes 4096",
            "process_start_time_seconds 50",
        ];
        holds(&lines, &expected);
        assert!(!lines.iter().any(|line| line.starts_with("process_threads")), "{lines:#?}");
    }

    #[test]
    fn of_many_cas_those_that_expire_first_have_a_series_and_the_token_has_one_too() {
        let validity = |not_after| Validity { not_after: at(not_after), renewal_due: at(0) };
        let ca = |block: u32| {
            let place = Place { block: usize::try_from(block).unwrap(), line: 1 };
            (Subject::Anchor(place), validity(100 - block))
        };
        let validities = (1..=40).map(ca).chain([(Subject::Token, validity(999))]).collect();
        let lines = lines(Observed { validities, ..Observed::default() }, &[], &Usage::default());
        let mut found = lines.iter().filter(|line| line.starts_with("expiry_")).collect::<Vec<_>>();
        found.retain(|line| !line.contains("subject=\"token\""));
        assert_eq!(found.len(), 32);
        assert!(!found.iter().any(|line| line.contains("block=\"8\"")), "{found:?}");
        holds(
            &lines,
            &[
                r#"expiry_timestamp_seconds{block="",subject="token"} 999"#,
                r#"expiry_timestamp_seconds{block="9",subject="ca"} 91"#,
            ],
        );
    }
}
