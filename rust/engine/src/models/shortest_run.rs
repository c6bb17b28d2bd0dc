//! How long a run takes at least. A request that has less time left is refused before any work.
//!
//! A refused request does not run, so a wrong value would never be corrected. That is why one request a second is let through all the same,
//! and a single shorter run corrects the value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use headgate_core::histogram::Counts;

/// The share of the newest runs that may be shorter.
const QUANTILE: f64 = 0.1;
/// How long every such request is refused after the value was learned or tried, in nanoseconds.
const TRIAL_INTERVAL_NS: u64 = 1_000_000_000;

/// The shortest run, learned from the newest.
#[derive(Debug, Default)]
pub(crate) struct ShortestRun {
    /// In nanoseconds; 0 before any run is known.
    run_ns: AtomicU64,
    /// When the value was learned, or a request was let through.
    since_ns: AtomicU64,
}

impl ShortestRun {
    /// Learns from the newest runs.
    pub(crate) fn learn(&self, runs: &Counts, now_ns: u64) {
        if let Some(run_ns) = runs.quantile_ns(QUANTILE) {
            self.run_ns.store(with_margin(run_ns), Relaxed);
            self.since_ns.store(now_ns, Relaxed);
        }
    }

    /// Records a run; a shorter one lowers the value.
    pub(crate) fn record_run(&self, run_ns: u64) {
        if run_ns < self.run_ns.load(Relaxed) {
            self.run_ns.store(with_margin(run_ns), Relaxed);
        }
    }

    /// How long a run takes, in nanoseconds; 0 before any run is known.
    pub(crate) fn get_ns(&self) -> u64 {
        self.run_ns.load(Relaxed)
    }

    /// How long a run takes, if that is more than is `left`.
    pub(crate) fn exceeds(&self, left: Duration, now_ns: impl FnOnce() -> u64) -> Option<Duration> {
        let run = Duration::from_nanos(self.get_ns());
        if left >= run {
            return None;
        }
        let (since, now_ns) = (self.since_ns.load(Relaxed), now_ns());
        let tries = !left.is_zero()
            && now_ns.saturating_sub(since) >= TRIAL_INTERVAL_NS
            && self.since_ns.compare_exchange(since, now_ns, Relaxed, Relaxed).is_ok();
        (!tries).then_some(run)
    }
}

/// The upper bound of a bucket is read, and a request with just enough time must not be refused.
fn with_margin(run_ns: u64) -> u64 {
    run_ns / 5 * 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_core::histogram::Histogram;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn shortest(runs_ms: &[u64], now_ns: u64) -> ShortestRun {
        let (histogram, mut counts) = (Histogram::default(), Counts::default());
        runs_ms.iter().for_each(|ms| histogram.record(ms * MS));
        histogram.add_to(&mut counts);
        let shortest = ShortestRun::default();
        shortest.learn(&counts, now_ns);
        shortest
    }

    fn refuses(shortest: &ShortestRun, left_ms: u64, now_ns: u64) -> bool {
        shortest.exceeds(Duration::from_millis(left_ms), || now_ns).is_some()
    }

    #[test]
    fn who_has_less_time_than_a_short_run_takes_is_refused() {
        let shortest = shortest(&[10, 100, 100, 100, 100, 100, 100, 100, 100, 100], 0);
        assert!(refuses(&shortest, 7, 0));
        assert!(!refuses(&shortest, 12, 0));
    }

    #[test]
    fn one_a_second_is_let_through_unless_it_is_late_already() {
        let shortest = shortest(&[100; 20], 5 * SECOND);
        assert!(refuses(&shortest, 50, 6 * SECOND - 1));
        assert!(refuses(&shortest, 0, 9 * SECOND));
        assert!(!refuses(&shortest, 50, 9 * SECOND));
        assert!(refuses(&shortest, 50, 9 * SECOND));
        assert!(!refuses(&shortest, 50, 10 * SECOND));
    }

    #[test]
    fn a_shorter_run_corrects_what_is_believed() {
        let shortest = shortest(&[100; 20], 0);
        shortest.record_run(120 * MS);
        assert!(refuses(&shortest, 50, 0));
        shortest.record_run(3 * MS);
        assert!(!refuses(&shortest, 50, 0));
    }

    #[test]
    fn nothing_known_refuses_nobody() {
        assert!(!refuses(&ShortestRun::default(), 0, 0));
    }
}
