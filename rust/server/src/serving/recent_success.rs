//! Whether a version answers anybody: what is known of one that has no known input to probe it with.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a version's answer to somebody else says that it works.
const RECENT: Duration = Duration::from_secs(10);

/// What a version's answers say of it.
#[derive(Debug, Default)]
pub struct RecentSuccess(Mutex<LastSuccess>);

#[derive(Debug, Default)]
struct LastSuccess {
    /// Good answers at the last look.
    good: u64,
    /// When a look found more of them than the one before.
    increased_ns: Option<u64>,
}

impl RecentSuccess {
    /// Whether the version, which has given so many good answers by now, gave one lately.
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
    fn a_version_that_answers_others_works_and_one_that_has_not_lately_does_not() {
        let (success, recent) = (RecentSuccess::default(), RECENT.as_nanos() as u64);
        assert!(!success.is_recent(0, 1));
        assert!(success.is_recent(3, 2));
        assert!(success.is_recent(3, 1 + recent));
        assert!(!success.is_recent(3, 2 + recent));
        assert!(success.is_recent(4, 3 + recent));
    }
}
