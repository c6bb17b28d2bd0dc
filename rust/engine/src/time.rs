//! The clock, waiting with a bound, and durations in nanoseconds.

mod instant;

use std::thread::JoinHandle;
use std::time::Duration;

pub use instant::Instant;

/// Joins a thread and returns its value. `None` if it panicked, or if it does not end by `deadline`, and is detached then.
pub fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    wait_until(deadline, || thread.is_finished()).then(|| thread.join().ok()).flatten()
}

/// Waits by polling until a condition holds. False if it does not hold by `deadline`.
pub(crate) fn wait_until(deadline: Instant, mut holds: impl FnMut() -> bool) -> bool {
    const STEP: Duration = Duration::from_millis(1);
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
