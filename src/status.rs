//! Pure: the page `/status`: one JSON object with what is served, what is wrong now, and what to do.
//!
//! The admin listener can be reached inside the cluster, so there is no error text here, no address of upstream,
//! and nothing secret. The words are those of `reason`.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::cache::View;
use crate::documents::Kind;
use crate::logging::line::{ascii_json, cut};
use crate::observed::{Observed, OwnTokenState, ServedKey};
use crate::reason::Reason;
use crate::upstream::{Subject, Validity};

/// The most keys and CAs that are listed, each.
const MOST: usize = 64;
/// A setting that may name upstream's address.
const UPSTREAM: &str = "UPSTREAM_HOST";

/// What there is now.
pub(crate) struct Facts<'a> {
    pub(crate) now: Instant,
    pub(crate) date: SystemTime,
    pub(crate) started: SystemTime,
    /// Names and values of the settings that differ from their defaults.
    pub(crate) settings: &'a [(&'static str, String)],
    pub(crate) view: &'a View,
    /// What `/readyz` and `/healthz` say.
    pub(crate) ready: Result<(), Reason>,
    pub(crate) healthy: Result<(), Reason>,
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Problem {
    reason: Reason,
    document: Option<Kind>,
}

/// The page.
pub(crate) fn page(facts: &Facts<'_>) -> String {
    let Facts { now, view, .. } = facts;
    let observed = &*view.observed;
    let kinds = [Kind::Discovery, Kind::Jwks];
    let documents = kinds.map(|kind| (kind.name().to_owned(), document(view, kind, *now)));
    let keys: Vec<_> = observed.keys.keys.iter().take(MOST).map(key).collect();
    let validities: Vec<_> = observed.validities.iter().take(MOST).map(validity).collect();
    let problems: Vec<_> = problems(facts).iter().map(problem).collect();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": time(facts.started),
        "settings": settings(facts.settings),
        "ready": facts.ready.is_ok(),
        "healthy": facts.healthy.is_ok(),
        "issuer": observed.issuer,
        "documents": Map::from_iter(documents),
        "keys": keys,
        "keys_changed": observed.keys.since.map(time),
        "own_token": observed.own_token.word(),
        "validity": validities,
        "problems": problems,
    });
    // Its names are strings: it can be written.
    ascii_json(serde_json::to_string_pretty(&status).unwrap_or_default()) + "\n"
}

fn settings(settings: &[(&'static str, String)]) -> Map<String, Value> {
    let shown = settings.iter().map(|(name, value)| {
        let value = if *name == UPSTREAM { "(not shown)" } else { value.as_str() };
        ((*name).to_owned(), json!(value))
    });
    shown.collect()
}

fn document(view: &View, kind: Kind, now: Instant) -> Value {
    let condition = view.snapshot.condition(kind, now);
    json!({
        "available": condition.is_some_and(|it| it.is_available),
        "stale": condition.is_some_and(|it| it.is_stale),
        "age_seconds": condition.map(|it| seconds(it.age)),
        "last_fetch": view.failure(kind).map_or("success", Reason::word),
    })
}

fn key(key: &ServedKey) -> Value {
    json!({
        "kid": key.kid.as_deref().map(cut),
        "algorithm": cut(&key.algorithm),
        "first_seen": time(key.first_seen),
        "listed": key.is_listed,
    })
}

fn validity((subject, validity): &(Subject, Validity)) -> Value {
    let mut value = json!({
        "subject": subject.word(),
        "expires": time(validity.not_after),
        "renewal_due": time(validity.renewal_due),
    });
    if let (Some(object), Some(block)) = (value.as_object_mut(), subject.block()) {
        object.insert("block".to_owned(), json!(block));
    }
    value
}

fn problem(problem: &Problem) -> Value {
    let mut value = json!({ "problem": problem.reason.word(), "hint": problem.reason.hint() });
    if let (Some(object), Some(kind)) = (value.as_object_mut(), problem.document) {
        object.insert("document".to_owned(), json!(kind.name()));
    }
    value
}

/// What is wrong now: what keeps clients from being served first.
fn problems(facts: &Facts<'_>) -> Vec<Problem> {
    let Facts { now, date, view, .. } = facts;
    let mut problems = Vec::new();
    let mut add = |reason, document| problems.push(Problem { reason, document });
    if facts.ready == Err(Reason::Stopping) {
        add(Reason::Stopping, None);
    }
    for kind in [Kind::Discovery, Kind::Jwks] {
        if view.snapshot.condition(kind, *now).is_some_and(|it| !it.is_available) {
            add(Reason::TooOld, Some(kind));
        }
        if let Some(failure) = view.failure(kind) {
            add(failure, Some(kind));
        }
    }
    let observed = &*view.observed;
    if observed.issuer_mismatch {
        add(Reason::IssuerMismatch, None);
    }
    if observed.own_token == OwnTokenState::Failed {
        add(Reason::OwnToken, None);
    }
    for kind in [Kind::Discovery, Kind::Jwks] {
        if observed.disagreement.about(kind, *now) {
            add(Reason::ApiServersDisagree, Some(kind));
        }
    }
    for reason in overdue(observed, *date) {
        add(reason, None);
    }
    problems
}

/// What is overdue for renewal, once each.
fn overdue(observed: &Observed, date: SystemTime) -> Vec<Reason> {
    let is_due = |reason: &Reason| {
        observed.validities.iter().any(|(subject, validity)| {
            let about = match subject {
                Subject::Token => Reason::TokenNotRenewed,
                Subject::Server => Reason::CertificateExpires,
                Subject::Anchor(_) => Reason::CaExpires,
            };
            about == *reason && validity.renewal_due <= date
        })
    };
    let reasons = [Reason::TokenNotRenewed, Reason::CertificateExpires, Reason::CaExpires];
    reasons.into_iter().filter(is_due).collect()
}

/// RFC 3339, with whole seconds.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// With three decimals at most.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
