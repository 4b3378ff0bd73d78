//! Pure: when a line about something that lasts is logged: when it begins or becomes something else,
//! then at most once a minute, and once when it ends.

use std::time::{Duration, Instant};

/// The least time between two lines about the same.
const AGAIN: Duration = Duration::from_secs(60);

/// What was logged about topics `T`, and when.
pub(crate) struct Notices<T> {
    logged: Vec<Logged<T>>,
}

struct Logged<T> {
    topic: T,
    state: String,
    at: Instant,
    /// No line has said yet that it has ended.
    is_open: bool,
}

impl<T: PartialEq> Notices<T> {
    pub(crate) const fn new() -> Self {
        Self { logged: Vec::new() }
    }

    /// Whether a line is due that says of `topic` that it is in `state`. What goes back and forth between
    /// two states has two lines a minute, and what comes and goes has one, and one for its end.
    pub(crate) fn is_due(&mut self, topic: T, state: &str, now: Instant) -> bool {
        let is_recent = |it: &Logged<T>| now.saturating_duration_since(it.at) < AGAIN;
        if self.logged.iter().any(|it| it.topic == topic && it.state == state && is_recent(it)) {
            return false;
        }
        self.logged.retain(|it| is_recent(it) || it.is_open && it.topic != topic);
        self.logged.push(Logged { topic, state: state.to_owned(), at: now, is_open: true });
        true
    }

    /// Notes that `topic` has ended; returns whether a line is due that says so, because one said that it
    /// had begun.
    pub(crate) fn end(&mut self, topic: &T) -> bool {
        let open = self.logged.iter_mut().filter(|it| it.topic == *topic && it.is_open);
        open.map(|it| it.is_open = false).count() > 0
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
        // It comes and goes: no line, and none for its end.
        assert!(!notices.is_due('a', "y", start + Duration::from_secs(63)));
        assert!(!notices.end(&'a'));
        assert!(notices.is_due('a', "y", start + Duration::from_secs(122)));
        assert!(notices.end(&'a'));
    }

    #[test]
    fn what_was_logged_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut notices = Notices::new();
        for minute in 0..100_u32 {
            let (topic, state) = (minute % 2, minute.to_string());
            assert!(notices.is_due(topic, &state, start + AGAIN * minute));
            // One of two ends; the other goes on, each time in another state.
            assert!(topic == 1 || notices.end(&topic));
        }
        assert_eq!(notices.logged.len(), 1);
    }
}
