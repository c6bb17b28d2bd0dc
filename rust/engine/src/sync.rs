//! The locks of the queue, the workers and a batch's row slots, and the atomics of free lists: the standard library's, or loom's if every
//! interleaving is tried.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

/// Takes a lock. A lock that a panic poisoned is taken as well: each change under these locks is complete when it is made.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
