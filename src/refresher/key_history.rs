//! Pure: when this process first saw each key that is served, and when the keys changed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use crate::documents::kid;
use crate::key_sets::KeySets;
use crate::observed::{ServedKey, ServedKeys};

/// The keys that are served, by their text, and since when.
#[derive(Default)]
pub(super) struct KeyHistory {
    first_seen: BTreeMap<String, SystemTime>,
    changes: u64,
    since: Option<SystemTime>,
}

impl KeyHistory {
    /// Notes the keys that are served from now on.
    pub(super) fn note(&mut self, key_sets: &KeySets, now: SystemTime) {
        let before = std::mem::take(&mut self.first_seen);
        let since = |text: &str| *before.get(text).unwrap_or(&now);
        let texts = key_sets.served().map(|key| (key.text.to_owned(), since(key.text)));
        self.first_seen = texts.collect();
        if !self.first_seen.keys().eq(before.keys()) {
            self.changes += u64::from(self.since.is_some());
            self.since = Some(now);
        }
    }

    /// The keys of `key_sets`, which was noted last.
    pub(super) fn served(&self, key_sets: &KeySets) -> ServedKeys {
        let keys = key_sets.served().filter_map(|served| {
            Some(ServedKey {
                kid: kid(served.key).map(ToOwned::to_owned),
                algorithm: algorithm(served.key).to_owned(),
                first_seen: *self.first_seen.get(served.text)?,
                is_listed: served.is_listed,
            })
        });
        ServedKeys { keys: keys.collect(), changes: self.changes, since: self.since }
    }
}

fn algorithm(key: &Value) -> &str {
    let member = |name| key.get(name).and_then(Value::as_str);
    member("alg").or_else(|| member("kty")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_has_been_seen_since_it_came_and_the_set_is_as_old_as_its_last_change() {
        let (start, date) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let key = |kid: char| json!({"kty": "EC", "kid": kid.to_string()});
        let mut sets = KeySets::new(Duration::from_secs(15));
        let mut history = KeyHistory::default();
        assert_eq!(history.served(&sets).since, None);
        // Each round with the keys that are served after it, when each was first seen, and the changes.
        for (second, listed, expected, changes, since) in [
            (0, "a", "a0", 0, 0),
            (10, "a", "a0", 0, 0),
            (20, "ba", "b20 a0", 1, 20),
            (30, "b", "b20 a0", 1, 20),
            (40, "b", "b20", 2, 40),
            (50, "ba", "b20 a50", 3, 50),
            (60, "ab", "b20 a50", 3, 50),
        ] {
            let keys: Vec<_> = listed.chars().map(key).collect();
            let after = Duration::from_secs(second);
            sets = sets.with(&keys, None, start + after);
            history.note(&sets, date + after);
            let served = history.served(&sets);
            let at = |time: SystemTime| time.duration_since(date).unwrap().as_secs();
            let keys: Vec<_> = served
                .keys
                .iter()
                .map(|key| format!("{}{}", key.kid.as_deref().unwrap(), at(key.first_seen)))
                .collect();
            assert_eq!(keys.join(" "), expected, "{second}");
            assert_eq!((served.changes, served.since.map(at)), (changes, Some(since)), "{second}");
        }
    }

    #[test]
    fn a_key_that_is_no_longer_listed_is_told_from_those_that_are() {
        let now = Instant::now();
        let keys = ["a", "b"].map(|kid| json!({"kty": "RSA", "kid": kid, "alg": "RS256"}));
        let sets = KeySets::new(Duration::from_secs(300)).with(&keys, None, now);
        let sets = sets.with(&keys[..1], None, now + Duration::from_secs(1));
        let mut history = KeyHistory::default();
        history.note(&sets, SystemTime::UNIX_EPOCH);
        let served = history.served(&sets).keys;
        let listed: Vec<_> = served.iter().map(|key| (&*key.algorithm, key.is_listed)).collect();
        assert_eq!(listed, [("RS256", true), ("RS256", false)]);
    }

    #[test]
    fn a_key_without_algorithm_is_named_by_its_type() {
        for (key, expected) in [
            (json!({"kty": "RSA", "alg": "RS256"}), "RS256"),
            (json!({"kty": "EC", "crv": "P-256"}), "EC"),
            (json!({"kty": "EC", "alg": 1}), "EC"),
            (json!({}), ""),
        ] {
            assert_eq!(algorithm(&key), expected);
        }
    }
}
