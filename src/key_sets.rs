//! Pure: the keys to publish, from the key sets of several rounds.
//!
//! While a control plane is restarted with a new signing key, its API servers publish different
//! sets. A relying party that gets one without the key of a token refuses the token, and may not
//! look again for minutes. So a key goes on being published for `KEY_GRACE_SECONDS` after the last
//! round that saw it.
//!
//! Invariant: a key is here once, whatever upstream lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::documents::{self, Jwks, Layout, MAX_SERVED_BYTES, Refused, kid};

/// The keys of the last valid round, and those of earlier ones within the grace.
#[derive(Clone)]
pub(crate) struct KeySets {
    /// `KEY_GRACE_SECONDS`.
    grace: Duration,
    /// Of the last round that had one. Sets of different issuers are not merged.
    issuer: Option<String>,
    /// Those of the last round first, in its order.
    keys: Vec<Seen>,
    last_round: Option<Instant>,
    /// The start of the last round whose set was not that of the round before.
    differed: Option<Instant>,
}

#[derive(Clone)]
struct Seen {
    key: Value,
    /// As [`text`] has it.
    text: String,
    /// The start of the last round that saw it.
    at: Instant,
}

/// A key to publish.
pub(crate) struct Served<'a> {
    pub(crate) key: &'a Value,
    /// As [`text`] has it.
    pub(crate) text: &'a str,
    /// Upstream listed it in the last round.
    pub(crate) is_listed: bool,
}

/// The same text for equal keys, whatever the order of their members.
pub(crate) fn text(key: &Value) -> String {
    let members: BTreeMap<_, _> = key.as_object().into_iter().flatten().collect();
    members.iter().map(|(name, value)| format!("{name:?}:{value},")).collect()
}

/// `keys` in the order of `before` if they are the same keys.
pub(crate) fn in_order_of(before: &[Value], keys: Vec<Value>) -> Vec<Value> {
    let texts = |keys: &[Value]| keys.iter().map(text).collect::<BTreeSet<_>>();
    if texts(before) == texts(&keys) { before.to_vec() } else { keys }
}

impl KeySets {
    pub(crate) const fn new(grace: Duration) -> Self {
        Self { grace, issuer: None, keys: Vec::new(), last_round: None, differed: None }
    }

    /// Whether these are other keys than those of the last round.
    pub(crate) fn differ(&self, keys: &[Value]) -> bool {
        let last: BTreeSet<_> = self.last().map(|seen| seen.text.clone()).collect();
        !last.is_empty() && last != keys.iter().map(text).collect()
    }

    /// Those of a round that began at `round` besides those of before. `issuer` is that of the
    /// discovery document that upstream served last.
    #[must_use]
    pub(crate) fn with(&self, keys: &[Value], issuer: Option<&str>, round: Instant) -> Self {
        let differs = self.differ(keys);
        let is_same_issuer = issuer.is_none() || self.issuer.as_deref() == issuer;
        let (mut texts, mut all) = (BTreeSet::new(), Vec::with_capacity(keys.len()));
        // The same keys in another order, as another API server may list them, change nothing.
        let in_order: Vec<_> = if differs || self.last_round.is_none() {
            keys.iter().collect()
        } else {
            self.last().map(|seen| &seen.key).collect()
        };
        for key in in_order {
            let text = text(key);
            if texts.insert(text.clone()) {
                all.push(Seen { key: key.clone(), text, at: round });
            }
        }
        // One that was changed in another member than the key itself must not be there twice: jose and
        // openid-client refuse both.
        let kids: BTreeSet<_> = keys.iter().filter_map(kid).collect();
        let is_kept = |seen: &&Seen| {
            let age = round.saturating_duration_since(seen.at);
            let is_recent = !self.grace.is_zero() && age <= self.grace;
            let is_replaced = kid(&seen.key).is_some_and(|kid| kids.contains(kid));
            is_same_issuer && is_recent && !is_replaced && !texts.contains(&seen.text)
        };
        all.extend(self.keys.iter().filter(is_kept).cloned());
        Self {
            grace: self.grace,
            issuer: issuer.map_or_else(|| self.issuer.clone(), |issuer| Some(issuer.to_owned())),
            keys: all,
            last_round: Some(round),
            differed: if differs { Some(round) } else { self.differed },
        }
    }

    /// Leaves out keys that were seen longest ago, of at least so many bytes of JSON together, or all that
    /// are not of the last round; false when there are none.
    fn drop_oldest(&mut self, bytes: usize) -> bool {
        let mut earlier: Vec<_> = self.keys.iter().filter(|seen| !self.is_last(seen)).collect();
        earlier.sort_by_key(|seen| seen.at);
        let mut length = 0;
        let dropped = earlier.iter().take_while(|seen| {
            let is_needed = length < bytes;
            length += seen.text.len();
            is_needed
        });
        let dropped: BTreeSet<_> = dropped.map(|seen| seen.text.clone()).collect();
        self.keys.retain(|seen| !dropped.contains(&seen.text));
        !dropped.is_empty()
    }

    /// The bytes of the key set to publish, in the form of `jwks`, and whether it is so large that it is not
    /// indented. `in_order` gives the keys their order. Where the set is too large, keys of earlier rounds are
    /// left out; an error when those of the last one are too large by themselves.
    pub(crate) fn serialise(
        &mut self,
        jwks: &Jwks,
        layout: Layout,
        mut in_order: impl FnMut(Vec<Value>) -> Vec<Value>,
    ) -> Result<(Vec<u8>, bool), Refused> {
        loop {
            let value = jwks.with_keys(in_order(self.keys().cloned().collect()));
            match documents::serialise_keys(&value, layout) {
                Err(Refused::TooLarge(bytes))
                    if self.drop_oldest(bytes.saturating_sub(MAX_SERVED_BYTES)) => {}
                outcome => return outcome,
            }
        }
    }

    /// The keys to publish.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Value> {
        self.keys.iter().map(|seen| &seen.key)
    }

    /// The keys to publish, and more about them.
    pub(crate) fn served(&self) -> impl Iterator<Item = Served<'_>> {
        let is_listed = |seen| self.is_last(seen);
        self.keys.iter().map(move |seen| {
            let Seen { key, text, .. } = seen;
            Served { key, text, is_listed: is_listed(seen) }
        })
    }

    fn is_last(&self, seen: &Seen) -> bool {
        Some(seen.at) == self.last_round
    }

    fn last(&self) -> impl Iterator<Item = &Seen> {
        self.keys.iter().filter(|seen| self.is_last(seen))
    }

    /// Whether the sets of two rounds differed within the grace before `now`.
    pub(crate) fn have_differed(&self, now: Instant) -> bool {
        self.differed.is_some_and(|at| now.saturating_duration_since(at) < self.grace)
    }

    /// A `kid` that more than one key has.
    pub(crate) fn kid_of_two(&self) -> Option<&str> {
        let mut kids = BTreeSet::new();
        self.keys().filter_map(kid).find(|kid| !kids.insert(*kid))
    }

    /// The `kid`s whose key was another one `before`, and is not published any longer by upstream.
    pub(crate) fn changed_kids(&self, before: &Self) -> Vec<&str> {
        let (now, then) = (self.by_kid(), before.by_kid());
        let is_changed = |(kid, keys): &(&&str, &BTreeSet<&str>)| {
            then.get(**kid).is_some_and(|then| keys.is_disjoint(then))
        };
        now.iter().filter(is_changed).map(|(kid, _)| *kid).collect()
    }

    /// The keys of the last round that have a `kid`.
    fn by_kid(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut keys = BTreeMap::<_, BTreeSet<_>>::new();
        for seen in self.last() {
            if let Some(kid) = kid(&seen.key) {
                keys.entry(kid).or_default().insert(seen.text.as_str());
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const S: Duration = Duration::from_secs(1);

    fn key(kid: &str, x: u8) -> Value {
        json!({"kty": "EC", "kid": kid, "x": x})
    }

    fn kids(sets: &KeySets) -> String {
        sets.keys().filter_map(kid).collect()
    }

    /// After rounds with one key for each letter of each text, ten seconds apart.
    fn after(grace: u32, rounds: &[&str]) -> (KeySets, Instant) {
        let start = Instant::now();
        let mut sets = KeySets::new(grace * S);
        let mut now = start;
        for (n, round) in (0..).zip(rounds) {
            now = start + n * 10 * S;
            let keys: Vec<_> = round.chars().map(|kid| key(&kid.to_string(), 1)).collect();
            sets = sets.with(&keys, Some("https://a"), now);
        }
        (sets, now)
    }

    #[test]
    fn the_newest_set_comes_first_in_its_order_then_keys_within_the_grace() {
        for (grace, rounds, expected) in [
            (300, &["ab", "ba"][..], "ab"),
            (300, &["ab", "cb"], "cba"),
            (300, &["a", "b", "a", "b"], "ba"),
            (10, &["a", "b"], "ba"),
            (9, &["a", "b"], "b"),
            (10, &["a", "b", "b"], "b"),
            (20, &["a", "b", "c"], "cba"),
            (0, &["a", "b"], "b"),
            (300, &["aab"], "ab"),
        ] {
            let (sets, _) = after(grace, rounds);
            assert_eq!(kids(&sets), expected, "{grace} {rounds:?}");
        }
    }

    #[test]
    fn the_order_of_members_makes_no_other_key() {
        let other = json!({"x": 1, "kid": "a", "kty": "EC"});
        let (sets, now) = after(300, &["a"]);
        let other = [other];
        assert!(!sets.differ(&other));
        assert_eq!(kids(&sets.with(&other, None, now + S)), "a");
    }

    #[test]
    fn the_same_keys_in_another_order_are_put_in_the_order_of_before() {
        let keys = |kids: &str| kids.chars().map(|it| key(&it.to_string(), 1)).collect::<Vec<_>>();
        for (before, now, expected) in
            [("", "ab", "ab"), ("ab", "ba", "ab"), ("ab", "b", "b"), ("ab", "bac", "bac")]
        {
            assert_eq!(in_order_of(&keys(before), keys(now)), keys(expected), "{before} {now}");
        }
    }

    #[test]
    fn keys_of_another_issuer_go_at_once() {
        let (sets, now) = after(300, &["ab"]);
        assert_eq!(kids(&sets.with(&[key("c", 1)], Some("https://b"), now + S)), "c");
        assert_eq!(kids(&sets.with(&[key("c", 1)], None, now + S)), "cab");
    }

    #[test]
    fn that_sets_differ_is_known_for_the_grace() {
        let (sets, now) = after(300, &["a"]);
        assert!(!sets.have_differed(now));
        assert!(!sets.differ(&[key("a", 1)]));
        assert!(sets.differ(&[key("a", 2)]) && sets.differ(&[key("a", 1), key("b", 1)]));
        let sets = sets.with(&[key("b", 1)], Some("https://a"), now);
        assert!(sets.have_differed(now + 299 * S) && !sets.have_differed(now + 300 * S));
    }

    #[test]
    fn keys_of_the_grace_are_dropped_oldest_first_and_no_others() {
        let (mut sets, _) = after(300, &["a", "b", "cd"]);
        assert_eq!(kids(&sets), "cdba");
        // As many bytes as the oldest has.
        assert!(sets.drop_oldest(text(&key("a", 1)).len()));
        assert_eq!(kids(&sets), "cdb");
        assert!(sets.drop_oldest(1) && !sets.drop_oldest(1));
        assert_eq!(kids(&sets), "cd");
    }

    #[test]
    fn a_key_that_gets_another_member_is_not_published_twice() {
        let (sets, now) = after(300, &["ab"]);
        let mut changed = key("a", 1);
        changed.as_object_mut().unwrap().insert("use".to_owned(), json!("sig"));
        let sets = sets.with(&[changed, key("b", 1)], None, now + S);
        assert_eq!(kids(&sets), "ab");
    }

    #[test]
    fn two_keys_of_one_kid_are_both_published_and_known() {
        let now = Instant::now();
        let keys = [key("a", 1), key("b", 1), key("a", 2), key("a", 1)];
        let sets = KeySets::new(S).with(&keys, None, now);
        assert_eq!((kids(&sets).as_str(), sets.kid_of_two()), ("aba", Some("a")));
        assert_eq!(after(300, &["ab"]).0.kid_of_two(), None);
    }

    #[test]
    fn a_key_that_changes_under_its_kid_is_known_once() {
        let (before, now) = after(300, &["ab"]);
        let changed = [key("a", 2), key("b", 1)];
        let sets = before.with(&changed, None, now + S);
        assert_eq!(sets.changed_kids(&before), ["a"]);
        let again = sets.with(&changed, None, now + 2 * S);
        assert_eq!(again.changed_kids(&sets), [""; 0]);
        // One that is added beside it has not changed it.
        let both = before.with(&[key("a", 1), key("a", 2)], None, now + S);
        assert_eq!(both.changed_kids(&before), [""; 0]);
    }
}
