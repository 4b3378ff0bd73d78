//! Mutexes whose poison is ignored: their holders never panic half way through a change.
//!
//! That holds for every mutex of this program, so a poisoned one still guards a complete value, and
//! whoever finds it goes on with that.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `changed` as long as `is_early`, and returns with the lock held.
pub(crate) fn wait_while<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    is_early: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    changed.wait_while(guard, is_early).unwrap_or_else(PoisonError::into_inner)
}
