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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::{Cache, Confirmed, Lifetimes};
    use crate::http::representation::Representation;
    use crate::http::routes::Paths;
    use crate::observed::{Disagreement, ServedKeys};
    use crate::upstream::Place;

    const MS: Duration = Duration::from_millis(1);
    /// 12 January 1970, 13:46:40.
    const DATE: Duration = Duration::from_secs(1_000_000);
    const CA: Subject = Subject::Anchor(Place { block: 3, line: 41 });

    /// A minute fresh, five minutes served.
    fn cache() -> Cache {
        let (cache_ttl, max_stale) = (60_000 * MS, 300_000 * MS);
        Cache::new(Lifetimes { cache_ttl, max_stale, revalidate: None }, 2, Paths::default())
    }

    fn store(cache: &Cache, kind: Kind, at: Instant) {
        let representation = Representation::new(kind, b"{}".to_vec());
        cache.store(kind, representation, Confirmed { at, max_age: None }, None);
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Valid until 2,000,000 seconds after the epoch.
    fn valid(subject: Subject, renewal_due: u64) -> (Subject, Validity) {
        let [not_after, renewal_due] = [2_000_000, renewal_due].map(at);
        (subject, Validity { not_after, renewal_due })
    }

    fn page_of(cache: &Cache, ready: Result<(), Reason>, now: Instant) -> Value {
        let text = page(&Facts {
            now,
            date: SystemTime::UNIX_EPOCH + DATE,
            started: SystemTime::UNIX_EPOCH,
            settings: &[("WORKERS", "3".to_owned()), (UPSTREAM, "https://10.0.0.1".to_owned())],
            view: &cache.view(),
            ready,
            healthy: Err(Reason::Forbidden),
        });
        assert!(text.ends_with("}\n"), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The words of what is wrong, and the documents that they are about.
    fn problems_of(page: &Value) -> Vec<String> {
        let problems = page["problems"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        problems.map(|it| [&it["problem"], &it["document"]].map(text).join(" ")).collect()
    }

    #[test]
    fn the_page_has_what_is_served_and_nothing_of_upstreams_address() {
        let (cache, now) = (cache(), Instant::now());
        store(&cache, Kind::Discovery, now);
        cache.fail(Kind::Jwks, Reason::Forbidden);
        let key = ServedKey {
            kid: Some("k\u{e9}".to_owned()),
            algorithm: "ES256".to_owned(),
            first_seen: at(60),
            is_listed: true,
        };
        cache.set_observed(Arc::new(Observed {
            issuer: Some("https://issuer.example".to_owned()),
            keys: ServedKeys { keys: vec![key], changes: 1, since: Some(at(61)) },
            validities: vec![valid(Subject::Token, 1_500_000), valid(CA, 1_500_000)],
            ..Observed::default()
        }));
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": "1970-01-01T00:00:00Z",
            "settings": {"WORKERS": "3", "UPSTREAM_HOST": "(not shown)"},
            "ready": true,
            "healthy": false,
            "issuer": "https://issuer.example",
            "documents": {
                "discovery": {"available": true, "stale": true, "age_seconds": 61.235, "last_fetch": "success"},
                "jwks": {"available": false, "stale": false, "age_seconds": null, "last_fetch": "forbidden"},
            },
            "keys": [{"kid": "k\u{e9}", "algorithm": "ES256", "first_seen": "1970-01-01T00:01:00Z", "listed": true}],
            "keys_changed": "1970-01-01T00:01:01Z",
            "own_token": "not_checked",
            "validity": [
                {"subject": "token", "expires": "1970-01-24T03:33:20Z", "renewal_due": "1970-01-18T08:40:00Z"},
                {
                    "subject": "ca",
                    "block": 3,
                    "expires": "1970-01-24T03:33:20Z",
                    "renewal_due": "1970-01-18T08:40:00Z",
                },
            ],
            "problems": [{"problem": "forbidden", "document": "jwks", "hint": Reason::Forbidden.hint()}],
        });
        let later = now + Duration::from_micros(61_234_600);
        assert_eq!(page_of(&cache, Ok(()), later), expected);
    }

    #[test]
    fn what_keeps_clients_from_being_served_is_said_first() {
        let (cache, now) = (cache(), Instant::now());
        for kind in [Kind::Discovery, Kind::Jwks] {
            store(&cache, kind, now);
        }
        assert_eq!(problems_of(&page_of(&cache, Err(Reason::TooOld), now)), [""; 0]);
        cache.fail(Kind::Discovery, Reason::Timeout);
        cache.set_observed(Arc::new(Observed {
            issuer_mismatch: true,
            own_token: OwnTokenState::Failed,
            disagreement: Disagreement { discovery: None, jwks: Some(now + 600_000 * MS) },
            validities: vec![valid(Subject::Token, 0)],
            ..Observed::default()
        }));
        let all = problems_of(&page_of(&cache, Err(Reason::Stopping), now + 300_001 * MS));
        let expected = [
            "stopping ",
            "too-old discovery",
            "timeout discovery",
            "too-old jwks",
            "issuer-mismatch ",
            "own-token ",
            "api-servers-disagree jwks",
            "token-not-renewed ",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_overdue_for_renewal_is_said_once_from_that_moment_on() {
        let due = |validities: &[(Subject, u64)]| {
            let validities = validities.iter().map(|(subject, due)| valid(*subject, *due));
            let validities = validities.collect();
            overdue(&Observed { validities, ..Observed::default() }, at(1_000_000))
        };
        let (past, exact, future) = (999_999, 1_000_000, 1_000_001);
        let server = Subject::Server;
        assert_eq!(due(&[(server, future), (CA, exact)]), [Reason::CaExpires]);
        assert_eq!(due(&[(server, past), (CA, future)]), [Reason::CertificateExpires]);
        assert_eq!(
            due(&[(CA, past), (CA, past), (server, future), (Subject::Token, exact)]),
            [Reason::TokenNotRenewed, Reason::CaExpires]
        );
    }
}
