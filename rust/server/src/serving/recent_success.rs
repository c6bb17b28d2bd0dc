//! Whether a version has answered a request lately. This stands in for a probe if no input is known that the version takes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a success says that the version works.
const RECENT: Duration = Duration::from_secs(10);

/// When a version last had a success, as far as calls of [`is_recent`](RecentSuccess::is_recent) show it.
#[derive(Debug, Default)]
pub struct RecentSuccess(Mutex<LastSuccess>);

#[derive(Debug, Default)]
struct LastSuccess {
    /// The successes at the last call.
    good: u64,
    /// When a call found more successes than the one before.
    increased_ns: Option<u64>,
}

impl RecentSuccess {
    /// Whether the version, which has had `good` successes by now, had one lately.
    pub fn is_recent(&self, good: u64, now_ns: u64) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if good != last.good {
            *last = LastSuccess { good, increased_ns: Some(now_ns) };
        }
        last.increased_ns.is_some_and(|at| now_ns.saturating_sub(at) < RECENT.as_nanos() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_counts_as_recent_for_a_while() {
        let (success, recent) = (RecentSuccess::default(), RECENT.as_nanos() as u64);
        assert!(!success.is_recent(0, 1));
        assert!(success.is_recent(3, 2));
        assert!(success.is_recent(3, 1 + recent));
        assert!(!success.is_recent(3, 2 + recent));
        assert!(success.is_recent(4, 3 + recent));
    }
}
