//! Pure: values that come and go, because several API servers answer in turn and differ.
//!
//! A value that is replaced and returns soon alternates. Each change to a value that was not there lately is a
//! change of its own, whatever alternates meanwhile.

use std::time::{Duration, Instant};

/// How long a value is remembered after it was replaced, and how long nothing returns until the
/// alternation is over: so long and, where rounds are rare, so many rounds.
const MEMORY: Duration = Duration::from_secs(300);
const MEMORY_ROUNDS: u64 = 20;
/// The most values that are remembered: a control plane has three or five API servers.
const MOST: usize = 8;

/// The values of one kind, round by round.
pub(super) struct Alternation<T> {
    current: Option<T>,
    /// Those that were replaced, and when: the last one at the end.
    earlier: Vec<(T, Time)>,
    /// When a value returned last; `None`: none alternates.
    returned: Option<Time>,
    /// The number of values that were noted.
    round: u64,
}

#[derive(Clone, Copy)]
struct Time {
    at: Instant,
    round: u64,
}

impl Time {
    fn is_before(self, now: Self) -> bool {
        now.at.saturating_duration_since(self.at) >= MEMORY
            && now.round.saturating_sub(self.round) >= MEMORY_ROUNDS
    }
}

/// What a round brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// The same value as before.
    Same,
    /// The same as for long, in which none returned.
    Settled,
    /// One that was not there lately; with the value before, if there was one.
    Changed(Option<T>),
    /// One that was there lately, in the place of `from`.
    Returned {
        from: T,
        /// None has returned before.
        is_first: bool,
    },
}

impl<T: Clone + PartialEq> Alternation<T> {
    pub(super) const fn new() -> Self {
        Self { current: None, earlier: Vec::new(), returned: None, round: 0 }
    }

    /// Whether a value returned lately.
    pub(super) const fn is_under_way(&self) -> bool {
        self.returned.is_some()
    }

    /// When a value returned last, of those that alternate.
    pub(super) fn returned(&self) -> Option<Instant> {
        self.returned.map(|time| time.at)
    }

    /// Notes the value of a round.
    pub(super) fn note(&mut self, value: &T, now: Instant) -> Step<T> {
        self.round += 1;
        let now = Time { at: now, round: self.round };
        if self.current.as_ref() == Some(value) {
            if self.returned.is_some_and(|at| at.is_before(now)) {
                self.returned = None;
                return Step::Settled;
            }
            return Step::Same;
        }
        let Some(from) = self.current.replace(value.clone()) else { return Step::Changed(None) };
        self.earlier.retain(|(earlier, at)| !at.is_before(now) && *earlier != from);
        let has_returned = self.earlier.iter().any(|(earlier, _)| earlier == value);
        if self.earlier.len() == MOST {
            self.earlier.remove(0);
        }
        self.earlier.push((from.clone(), now));
        if has_returned {
            let is_first = self.returned.replace(now).is_none();
            return Step::Returned { from, is_first };
        }
        Step::Changed(Some(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After 20 rounds more with the value that is there.
    fn rounds(values: &mut Alternation<char>, value: char, now: Instant) {
        for _ in 0..MEMORY_ROUNDS {
            assert_eq!(values.note(&value, now), Step::Same);
        }
    }

    #[test]
    fn what_comes_and_goes_is_told_from_what_changes() {
        let start = Instant::now();
        let mut values = Alternation::new();
        let returned = |from, is_first| Step::Returned { from, is_first };
        for (second, value, expected) in [
            (0, 'a', Step::Changed(None)),
            (1, 'a', Step::Same),
            (2, 'b', Step::Changed(Some('a'))),
            (3, 'a', returned('b', true)),
            (4, 'b', returned('a', false)),
            // A third value is a change, and no return.
            (5, 'c', Step::Changed(Some('b'))),
            (6, 'a', returned('c', false)),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(values.note(&value, now), expected, "{second} {value}");
        }
        assert!(values.is_under_way());
        assert_eq!(values.returned(), Some(start + Duration::from_secs(6)), "the last one");
        rounds(&mut values, 'a', start + Duration::from_secs(305));
        assert_eq!(values.note(&'a', start + Duration::from_secs(306)), Step::Settled);
        assert!(!values.is_under_way() && values.returned().is_none());
        // What was there long ago is new.
        let now = start + Duration::from_secs(307);
        assert_eq!(values.note(&'c', now), Step::Changed(Some('a')));
        assert_eq!(values.note(&'a', now), returned('c', true));
    }

    #[test]
    fn where_rounds_are_rare_rounds_count() {
        let start = Instant::now();
        let mut values = Alternation::new();
        let at = |round: u32| start + round * Duration::from_secs(4000);
        assert_eq!(values.note(&'a', at(0)), Step::Changed(None));
        assert_eq!(values.note(&'b', at(1)), Step::Changed(Some('a')));
        let is_first = |round| round == 2;
        for round in 2..40 {
            let (value, from) = if round % 2 == 0 { ('a', 'b') } else { ('b', 'a') };
            let expected = Step::Returned { from, is_first: is_first(round) };
            assert_eq!(values.note(&value, at(round)), expected);
        }
        for round in 40..59 {
            assert_eq!(values.note(&'b', at(round)), Step::Same);
        }
        assert_eq!(values.note(&'b', at(59)), Step::Settled);
    }

    #[test]
    fn few_values_are_remembered() {
        let now = Instant::now();
        let mut values = Alternation::new();
        for value in 0..1000 {
            assert!(matches!(values.note(&value, now), Step::Changed(_)));
        }
        assert_eq!(values.earlier.len(), MOST);
    }
}
