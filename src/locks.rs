//! Locks of mutexes, which ignore poisoning.
//!
//! In this program no thread panics half-way through a change under a lock. So a poisoned mutex
//! still guards a complete value, which can be used.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `changed` while `must_wait` returns true, and returns with the lock held.
pub(crate) fn wait_while<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    must_wait: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    changed.wait_while(guard, must_wait).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait_while`], and for `time` at most, if given.
pub(crate) fn wait_while_within<'a, T>(
    time: Option<Duration>,
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    must_wait: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    match time {
        None => wait_while(changed, guard, must_wait),
        Some(time) => {
            let woken = changed.wait_timeout_while(guard, time, must_wait);
            woken.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
