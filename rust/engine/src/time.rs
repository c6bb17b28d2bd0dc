//! Waiting with a bound, and durations as nanoseconds.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a thread returned, or `None` when it outlives `deadline` and is let go of, or panicked.
pub fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    wait_until(deadline, || thread.is_finished()).then(|| thread.join().ok()).flatten()
}

/// Waits for what tells nobody; false when it is not so by `deadline`.
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
