//! Pure: when the next round is due.

use std::time::{Duration, SystemTime};

/// The shortest pause for a token that is to be renewed.
const BEFORE_RENEWAL: Duration = Duration::from_secs(60);
/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failure, even if `CACHE_TTL_SECONDS` is longer: the end of an outage
/// should be noticed within a minute.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The longest pause while API servers publish different key sets.
pub(crate) const WHILE_SETS_DIFFER: Duration = Duration::from_secs(5);

/// The time from the start of a round that brought both documents to the start of the next one: 75
/// to 90 % of `cache_ttl`, so that a copy is confirmed before it is stale, and replicas do not all
/// send requests at the same time. `jitter` is from 0 to 1.
pub(super) fn refresh_pause(cache_ttl: Duration, jitter: f64) -> Duration {
    cache_ttl.mul_f64(0.75 + 0.15 * jitter)
}

/// The time from the start of a failed round to the start of the next one, after `failures` other
/// failed ones in a row. It doubles each time, up to `cache_ttl` or a minute, whichever is shorter.
/// `jitter`, from 0 to 1, shortens it by up to a fifth.
pub(crate) fn retry_pause(failures: u32, cache_ttl: Duration, jitter: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(cache_ttl).min(LONGEST_RETRY).mul_f64(0.8 + 0.2 * jitter)
}

/// The longest pause while the gateway's own token counts as renewed until `due`: a round reads it again. So what
/// is said of it is a minute old at most, even if `CACHE_TTL_SECONDS` is longer.
pub(super) fn until_renewal(due: SystemTime, now: SystemTime) -> Duration {
    due.duration_since(now).unwrap_or_default().max(BEFORE_RENEWAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_refreshed_before_they_are_stale() {
        let ttl = Duration::from_secs(60);
        assert_eq!(refresh_pause(ttl, 0.0), Duration::from_secs(45));
        assert_eq!(refresh_pause(ttl, 1.0), Duration::from_secs(54));
    }

    #[test]
    fn a_token_that_is_to_be_renewed_is_read_again_within_a_minute_of_that() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        for (due, expected) in [(0, 60), (9_999, 60), (10_000, 60), (10_059, 60), (13_607, 3_607)] {
            let due = SystemTime::UNIX_EPOCH + Duration::from_secs(due);
            assert_eq!(until_renewal(due, now), Duration::from_secs(expected), "{expected}");
        }
    }

    #[test]
    fn retries_back_off_to_the_ttl_and_to_a_minute() {
        let ttl = Duration::from_secs(3);
        let pauses = [0, 1, 2, 3, 60].map(|failures| retry_pause(failures, ttl, 1.0).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 3000, 3000]);
        assert_eq!(retry_pause(99, Duration::from_secs(86_400), 1.0), LONGEST_RETRY);
        assert!(retry_pause(0, Duration::from_millis(100), 0.0) >= Duration::from_millis(80));
    }
}
