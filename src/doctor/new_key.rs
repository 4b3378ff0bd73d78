//! Pure: which relying parties have a key that was added to a key set.
//!
//! The times are the worst case of a relying party that runs many processes, each of which fetches
//! the key set for itself. No network, no clock: how long the key has been served is given.

use std::time::Duration;

use super::finding::Finding;
use super::wants::{Looks, RelyingParty};

const SUBJECT: &str = "key";

/// What the key set's `Cache-Control` allows.
#[derive(Clone, Copy)]
pub(crate) struct Caching {
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
}

/// A key that is served.
pub(crate) struct Served<'a> {
    pub(crate) kid: &'a str,
    /// Since when at least, as RFC 3339 has it, and for how long that is.
    pub(crate) since: &'a str,
    pub(crate) lasts: Duration,
}

/// Whether a relying party has a key that was added to the key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HasKey {
    /// Each process of it, or it fetches the key at the first token.
    Yes,
    /// Not each process: in the worst case only after so long.
    In(Duration),
    /// Nothing is known about it.
    Unknown,
}

/// Is it safe to sign with a new key? Who can be expected to have it by now; without `served`, where nobody knows
/// since when the keys are, how long that takes. With `each`, there is a line for each of `parties` too.
pub(crate) fn findings(
    served: Option<&Served<'_>>,
    parties: &[&'static RelyingParty],
    each: bool,
    caching: Caching,
) -> Vec<Finding> {
    let lasts = served.map(|it| it.lasts);
    let mut findings = Vec::new();
    let (mut late, mut unknown) = (Vec::new(), Vec::new());
    for party in parties {
        let (has_key, why) = has_key(party, caching, lasts);
        match has_key {
            HasKey::In(left) => late.push(format!("{} ({} s)", party.name, left.as_secs())),
            HasKey::Unknown => unknown.push(party.name),
            HasKey::Yes => {}
        }
        if each && has_key != HasKey::Unknown {
            let of_key = served.map(|it| format!("{}: ", it.kid)).unwrap_or_default();
            findings.push(Finding::ok(SUBJECT, format!("{of_key}{} {why}", party.name)));
        }
    }
    let not_known = if unknown.is_empty() {
        String::new()
    } else {
        format!("; not known for {}", unknown.join(", "))
    };
    let late = late.join(", ");
    findings.push(match served {
        None if late.is_empty() => {
            let says = "a key that is added is seen at once by all that are known";
            Finding::ok(SUBJECT, format!("{says}{not_known}"))
        }
        None => {
            let says = "since when the keys are served is not known from outside; one that is added is seen late by";
            Finding::ok(SUBJECT, format!("{says} {late}{not_known}"))
        }
        Some(Served { kid, since, .. }) if late.is_empty() => {
            let says = format!("{kid} is served by this pod since {since} at least");
            Finding::ok(SUBJECT, format!("{says}, long enough for all that are known{not_known}"))
        }
        Some(Served { kid, since, .. }) => {
            let says = format!("{kid} is served by this pod since {since} at least");
            let what_to_do = "if it is new, wait so long before you sign with it";
            let says = format!("{says}: perhaps not yet seen by {late}{not_known}");
            Finding::warning(SUBJECT, says, what_to_do)
        }
    });
    findings
}

/// Whether a relying party has a key that has been served for `lasts`, and a sentence without its full stop.
fn has_key(party: &RelyingParty, caching: Caching, lasts: Option<Duration>) -> (HasKey, String) {
    let Caching { max_age, s_maxage } = caching;
    let seconds = |it: Duration| it.as_secs();
    let (worst, rule) = match party.looks {
        Looks::Unknown => (None, "when it looks for new keys is not known".to_owned()),
        Looks::AtOnce { cool_down } if cool_down.is_zero() => {
            (Some(cool_down), "it fetches the key set at the first token of the key".to_owned())
        }
        Looks::AtOnce { cool_down } => {
            let rule = format!(
                "it fetches the key set at the first token of the key, if its last fetch is {} s old",
                seconds(cool_down)
            );
            (Some(cool_down), rule)
        }
        Looks::Every(period) => {
            let rule = format!("it fetches the key set every {} s only", seconds(period));
            (Some(period), rule)
        }
        Looks::EveryMaxAge { at_least } => {
            let period = max_age.unwrap_or_default().max(at_least);
            let rule = format!("it fetches the key set every {} s only", seconds(period));
            (Some(period), rule)
        }
        Looks::AfterMaxAge { less } => {
            let held = s_maxage.or(max_age).unwrap_or_default().saturating_sub(less);
            let rule = if held.is_zero() {
                "it fetches the key set at the first token of the key, by this Cache-Control"
                    .to_owned()
            } else {
                format!(
                    "it looks for a new key, but not before {} s have passed since its last fetch \
                 (Cache-Control less {} s)",
                    seconds(held),
                    seconds(less)
                )
            };
            (Some(held), rule)
        }
        Looks::AfterFirstRefusal { by_itself } => {
            let rule = format!(
                "it refuses the first token of the key and then fetches the key set; by itself \
                 every {} s",
                seconds(by_itself)
            );
            (Some(by_itself), rule)
        }
    };
    let stale = match party.stale_look {
        Some(cost) if cost > Duration::from_secs(2) => {
            format!("; a look before the key was there costs {} s", seconds(cost))
        }
        _ => String::new(),
    };
    let (has_key, verdict) = match (worst, lasts) {
        (None, _) => (HasKey::Unknown, "not known".to_owned()),
        (Some(worst), Some(lasts)) if lasts >= worst => (HasKey::Yes, "has it".to_owned()),
        (Some(worst), Some(lasts)) => {
            let left = worst.saturating_sub(lasts);
            (HasKey::In(left), format!("perhaps not yet, for {} s more", seconds(left)))
        }
        (Some(Duration::ZERO), None) => (HasKey::Yes, "has a key that is added at once".to_owned()),
        (Some(worst), None) => {
            let says = format!("has a key that is added after {} s at most", seconds(worst));
            (HasKey::In(worst), says)
        }
    };
    (has_key, format!("{verdict}: {rule}{stale}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::relying_parties::named;

    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(it: Option<u64>) -> Option<Duration> {
        it.map(Duration::from_secs)
    }

    fn caching(max_age: Option<u64>, s_maxage: Option<u64>) -> Caching {
        Caching { max_age: seconds(max_age), s_maxage: seconds(s_maxage) }
    }

    #[test]
    fn a_key_is_there_when_the_slowest_process_has_looked() {
        let within = |it| HasKey::In(Duration::from_secs(it));
        for (party, max_age, s_maxage, lasts, expected) in [
            // Cache-Control of the key set: max-age, s-maxage; served for, if it is known; who has it.
            ("go-oidc", Some(3600), None, Some(0), HasKey::Yes),
            ("go-oidc", None, None, None, HasKey::Yes),
            ("jose", None, None, Some(10), within(20)),
            ("jose", None, None, Some(30), HasKey::Yes),
            ("jose", None, None, None, within(30)),
            ("openid-client", None, None, Some(30), within(30)),
            ("kubernetes", Some(3600), None, Some(60), within(3510)),
            ("kubernetes", Some(3600), None, Some(3570), HasKey::Yes),
            ("kubernetes", Some(3600), Some(30), Some(0), HasKey::Yes),
            ("kubernetes", Some(30), None, None, HasKey::Yes),
            ("kubernetes", None, None, Some(0), HasKey::Yes),
            ("jwx", Some(60), None, Some(300), within(600)),
            ("jwx", Some(3600), None, Some(900), within(2700)),
            ("envoy", Some(60), None, Some(599), within(1)),
            ("istio", None, None, Some(1200), HasKey::Yes),
            ("kafka", None, None, None, within(3600)),
            ("aws", Some(60), None, Some(60), HasKey::Unknown),
            ("aws", Some(60), None, None, HasKey::Unknown),
        ] {
            let party = named(party).unwrap();
            let (found, _) = has_key(party, caching(max_age, s_maxage), seconds(lasts));
            assert_eq!(found, expected, "{} {max_age:?} {lasts:?}", party.name);
        }
    }

    #[test]
    fn it_says_when_and_why() {
        for (party, lasts, expected) in [
            (
                "keyfunc",
                Some(DAY),
                "has it: it fetches the key set at the first token of the key; a look before the \
                 key was there costs 300 s",
            ),
            (
                "kubernetes",
                Some(Duration::from_secs(70)),
                "perhaps not yet, for 3500 s more: it looks for a new key, but not before 3570 s \
                 have passed since its last fetch (Cache-Control less 30 s)",
            ),
            (
                "istio",
                None,
                "has a key that is added after 1200 s at most: it fetches the key set every 1200 s \
                 only",
            ),
        ] {
            let (_, why) = has_key(named(party).unwrap(), caching(Some(3600), None), lasts);
            assert_eq!(why, expected);
        }
    }

    #[test]
    fn a_key_is_safe_to_sign_with_when_no_relying_party_that_was_named_is_late() {
        let key = |lasts| Served { kid: "new", since: "2026-11-28T00:00:00Z", lasts };
        let says = |served: Option<&Served<'_>>, names: &[&str]| {
            let parties: Vec<_> = names.iter().map(|name| named(name).unwrap()).collect();
            findings(served, &parties, true, caching(Some(60), None)).pop().unwrap()
        };
        let late = says(Some(&key(Duration::from_secs(60))), &["jwx", "go-oidc", "aws"]);
        assert_eq!(late.level, Level::Warning);
        assert!(late.says.ends_with("by jwx (840 s); not known for aws"), "{}", late.says);
        assert_eq!(says(Some(&key(DAY)), &["jwx"]).level, Level::Ok);
        let unknown = says(None, &["jwx", "go-oidc"]).says;
        assert!(
            unknown
                .ends_with("not known from outside; one that is added is seen late by jwx (900 s)")
        );
    }
}
