//! Pure: which relying parties have a key that was added to a key set.
//!
//! The times are the worst case of a relying party that runs many processes, each of which fetches
//! the key set for itself. No network, no clock: how long the key has been published is given.

use std::time::Duration;

use crate::doctor::wants::{Looks, RelyingParty};

/// Whether a relying party has a key that was added to the key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HasKey {
    /// Each process of it, or it fetches the key at the first token.
    Yes,
    /// Not each process: in the worst case only after so long.
    In(Duration),
    /// The key is not published.
    Never,
    /// Nothing is known about it.
    Unknown,
}

/// Whether it is safe to sign with a new key, as far as one relying party is concerned.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) party: &'static str,
    pub(crate) has_key: HasKey,
    /// A sentence.
    pub(crate) why: String,
}

/// Who has a key by now that has been published for `served_since`; `None` if it is not published.
/// Both times are those of the key set's `Cache-Control`.
pub(crate) fn new_key(
    party: &RelyingParty,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    served_since: Option<Duration>,
) -> NewKey {
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
            let rule = format!(
                "it looks for a new key, but not before {} s have passed since its last fetch \
                 (Cache-Control less {} s)",
                seconds(held),
                seconds(less)
            );
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
    let (has_key, verdict) = match (served_since, worst) {
        (None, _) => (HasKey::Never, "Do not sign with it, it is not published".to_owned()),
        (_, None) => (HasKey::Unknown, "Not known".to_owned()),
        (Some(since), Some(worst)) if since >= worst => (HasKey::Yes, "Has it".to_owned()),
        (Some(since), Some(worst)) => {
            let left = worst.saturating_sub(since);
            (HasKey::In(left), format!("Perhaps not yet, for {} s more", seconds(left)))
        }
    };
    NewKey { party: party.name, has_key, why: format!("{verdict}: {rule}{stale}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::relying_parties::named;

    fn seconds(it: Option<u64>) -> Option<Duration> {
        it.map(Duration::from_secs)
    }

    #[test]
    fn a_key_is_there_when_the_slowest_process_has_looked() {
        let within = |it| HasKey::In(Duration::from_secs(it));
        for (party, max_age, s_maxage, since, expected) in [
            // Cache-Control of the key set: max-age, s-maxage; served for; who has it.
            ("go-oidc", None, None, None, HasKey::Never),
            ("go-oidc", Some(3600), None, Some(0), HasKey::Yes),
            ("jose", None, None, Some(10), within(20)),
            ("jose", None, None, Some(30), HasKey::Yes),
            ("openid-client", None, None, Some(30), within(30)),
            ("kubernetes", Some(3600), None, Some(60), within(3510)),
            ("kubernetes", Some(3600), None, Some(3570), HasKey::Yes),
            ("kubernetes", Some(3600), Some(30), Some(0), HasKey::Yes),
            ("kubernetes", Some(30), None, Some(0), HasKey::Yes),
            ("kubernetes", None, None, Some(0), HasKey::Yes),
            ("jwx", Some(60), None, Some(300), within(600)),
            ("jwx", Some(3600), None, Some(900), within(2700)),
            ("envoy", Some(60), None, Some(599), within(1)),
            ("istio", None, None, Some(1200), HasKey::Yes),
            ("kafka", None, None, Some(60), within(3540)),
            ("aws", Some(60), None, Some(60), HasKey::Unknown),
            ("aws", Some(60), None, None, HasKey::Never),
        ] {
            let party = named(party).unwrap();
            let found = new_key(party, seconds(max_age), seconds(s_maxage), seconds(since));
            assert_eq!(found.has_key, expected, "{} {max_age:?} {since:?}", party.name);
            assert_eq!(found.party, party.name);
            assert!(found.why.ends_with('.'), "{}", found.why);
        }
    }

    #[test]
    fn it_says_when_and_why() {
        let day = Some(Duration::from_secs(86_400));
        for (party, since, expected) in [
            (
                "keyfunc",
                day,
                "Has it: it fetches the key set at the first token of the key; a look before the \
                 key was there costs 300 s.",
            ),
            (
                "kubernetes",
                Some(Duration::from_secs(70)),
                "Perhaps not yet, for 3500 s more: it looks for a new key, but not before 3570 s \
                 have passed since its last fetch (Cache-Control less 30 s).",
            ),
            (
                "istio",
                None,
                "Do not sign with it, it is not published: it fetches the key set every 1200 s only.",
            ),
        ] {
            let max_age = Some(Duration::from_secs(3600));
            let found = new_key(named(party).unwrap(), max_age, None, since);
            assert_eq!(found.why, expected);
        }
    }
}
