//! Pure: when a line about something that lasts is logged: when it begins or becomes something else,
//! then at most once a minute, and once when it ends.

use std::time::{Duration, Instant};

/// The least time between two lines about the same.
const AGAIN: Duration = Duration::from_secs(60);

/// What was logged about topics `T`, and when.
pub(crate) struct Notices<T> {
    logged: Vec<(T, String, Instant)>,
}

impl<T: PartialEq> Notices<T> {
    pub(crate) const fn new() -> Self {
        Self { logged: Vec::new() }
    }

    /// Whether a line is due that says of `topic` that it is in `state`. One that goes back and
    /// forth between two states has two lines a minute.
    pub(crate) fn is_due(&mut self, topic: T, state: &str, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < AGAIN;
        let is_this = |logged: &(T, String, Instant)| logged.0 == topic && logged.1 == state;
        if self.logged.iter().any(|logged| is_this(logged) && is_recent(logged.2)) {
            return false;
        }
        self.logged.retain(|logged| logged.0 != topic || logged.1 != state && is_recent(logged.2));
        self.logged.push((topic, state.to_owned(), now));
        true
    }

    /// Forgets `topic`; returns whether a line said that it had begun.
    pub(crate) fn end(&mut self, topic: &T) -> bool {
        let before = self.logged.len();
        self.logged.retain(|logged| logged.0 != *topic);
        self.logged.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_when_the_state_changes_once_a_minute_and_when_it_ends() {
        let start = Instant::now();
        let mut notices = Notices::new();
        for (second, topic, state, expected) in [
            (0, 'a', "x", true),
            (0, 'b', "x", true),
            (1, 'a', "x", false),
            (2, 'a', "y", true),
            (3, 'a', "x", false),
            (59, 'a', "x", false),
            (60, 'a', "x", true),
            (61, 'a', "y", false),
            (62, 'a', "y", true),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(notices.is_due(topic, state, now), expected, "{second} {topic} {state}");
        }
        assert!(notices.end(&'a') && !notices.end(&'a') && notices.end(&'b'));
        assert!(notices.is_due('a', "y", start + Duration::from_secs(63)));
    }
}
