//! Waits for what nothing announces: asks again and again, up to a limit.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take: generous, for a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks until `condition` holds; panics when that is not within [`SOON`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(SOON, Duration::from_millis(20), what, || condition().then_some(()).ok_or("not yet"));
}

/// Tries, after each `pause`, until it is done; panics with the last reason when `limit` is over.
#[track_caller]
pub fn within<T, E: Display>(
    limit: Duration,
    pause: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) => assert!(Instant::now() < end, "{what}: not within {limit:?}: {why}"),
        }
        thread::sleep(pause);
    }
}
