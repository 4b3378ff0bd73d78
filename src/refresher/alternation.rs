//! Pure: values that come and go, because several API servers answer in turn and differ.
//!
//! A value that is replaced and returns within five minutes alternates. Each change to a value that was
//! not there lately is a change of its own, whatever alternates meanwhile.

use std::time::{Duration, Instant};

/// How long a value is remembered after it was replaced, and how long nothing returns until the
/// alternation is over.
const MEMORY: Duration = Duration::from_secs(300);
/// The most values that are remembered: a control plane has three or five API servers.
const MOST: usize = 8;

/// The values of one kind, round by round.
pub(super) struct Alternation<T> {
    current: Option<T>,
    /// Those that were replaced, and when: the last one at the end.
    earlier: Vec<(T, Instant)>,
    /// When a value returned last; `None`: none alternates.
    returned: Option<Instant>,
}

/// What a round brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// The same value as before.
    Same,
    /// The same as for five minutes, in which none returned.
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
        Self { current: None, earlier: Vec::new(), returned: None }
    }

    /// Notes the value of a round.
    pub(super) fn note(&mut self, value: &T, now: Instant) -> Step<T> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < MEMORY;
        if self.current.as_ref() == Some(value) {
            if self.returned.is_some_and(|at| !is_recent(at)) {
                self.returned = None;
                return Step::Settled;
            }
            return Step::Same;
        }
        let Some(from) = self.current.replace(value.clone()) else { return Step::Changed(None) };
        self.earlier.retain(|(earlier, at)| is_recent(*at) && *earlier != from);
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
            (305, 'a', Step::Same),
            (306, 'a', Step::Settled),
            (307, 'a', Step::Same),
            // What was there long ago is new.
            (308, 'c', Step::Changed(Some('a'))),
            (309, 'a', returned('c', true)),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(values.note(&value, now), expected, "{second} {value}");
        }
    }

    #[test]
    fn an_alternation_ends_when_another_value_stays() {
        let start = Instant::now();
        let mut values = Alternation::new();
        for (second, value) in [(0, 'a'), (1, 'b'), (2, 'a'), (3, 'b')] {
            values.note(&value, start + Duration::from_secs(second));
        }
        assert_eq!(values.note(&'b', start + Duration::from_secs(302)), Step::Same);
        assert_eq!(values.note(&'b', start + Duration::from_secs(303)), Step::Settled);
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
