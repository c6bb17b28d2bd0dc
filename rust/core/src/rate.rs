//! Rate limits for callers: the generic cell rate algorithm (ITU-T I.371), one cell for each caller.
//!
//! A cell holds the time at which the caller's bucket will be full again. Once that time has passed the cell holds nothing, and another
//! caller may have it. So the table is bounded, and no caller loses a state that matters.
//! A set of cells can be full of callers that are within their burst. A new caller then shares the cell that is free soonest; that is
//! counted. There are no locks: a cell is taken and advanced by compare-and-swap.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::limits::RateSpec;

/// Cells in which a caller may be: those of one set.
const WAYS: usize = 8;
/// Sets, if a header identifies callers: 16 384 cells, 256 KiB.
const SETS: usize = 2048;

/// The longest burst, in nanoseconds: 146 years, so that sums with it do not overflow.
const MOST_NS: u64 = u64::MAX / 4;

/// The rate of an endpoint's callers.
#[derive(Debug)]
pub struct RateLimiter {
    period_ns: f64,
    burst_ns: u64,
    seed: u64,
    cells: Box<[CallerCell]>,
    crowded: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct CallerCell {
    /// The hash of the caller that has the cell; 0 if none has.
    caller: AtomicU64,
    /// When the caller's bucket is full again, in nanoseconds; the theoretical arrival time.
    full_ns: AtomicU64,
}

impl RateLimiter {
    /// A limiter. `seed` decides which cell a caller gets; callers must not know it, or they could choose whose cell they share.
    pub fn new(rate: &RateSpec, seed: u64) -> Self {
        let period_ns = 1e9 / rate.per_second;
        let sets = if rate.by.is_some() { SETS } else { 1 };
        Self {
            period_ns,
            burst_ns: ((period_ns * f64::from(rate.burst)) as u64).min(MOST_NS),
            seed,
            cells: (0..sets * WAYS).map(|_| CallerCell::default()).collect(),
            crowded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Admits a request of a caller at `now_ns`, on any clock that does not go back.
    ///
    /// # Errors
    /// How long the caller must wait.
    pub fn take(&self, caller: &[u8], now_ns: u64) -> Result<(), Duration> {
        let cell = self.cell(xxh64(caller, self.seed).max(1), now_ns);
        let mut full_ns = cell.full_ns.load(Relaxed);
        loop {
            let next_ns = full_ns.max(now_ns).saturating_add(self.period_ns as u64);
            let early = (next_ns - now_ns).saturating_sub(self.burst_ns.max(self.period_ns as u64));
            if early > 0 {
                self.refused.fetch_add(1, Relaxed);
                return Err(Duration::from_nanos(early));
            }
            match cell.full_ns.compare_exchange_weak(full_ns, next_ns, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(present) => full_ns = present,
            }
        }
    }

    /// Requests whose caller had to share a cell, because there were too many callers.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    /// Requests that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn cell(&self, hash: u64, now_ns: u64) -> &CallerCell {
        let set = hash as usize % (self.cells.len() / WAYS);
        let cells = &self.cells[set * WAYS..][..WAYS];
        if let Some(known) = cells.iter().find(|cell| cell.caller.load(Relaxed) == hash) {
            return known;
        }
        let free = cells.iter().find(|cell| {
            let caller = cell.caller.load(Relaxed);
            // Another thread may have taken the cell for the same caller a moment ago.
            caller == hash
                || cell.full_ns.load(Relaxed) <= now_ns
                    && cell
                        .caller
                        .compare_exchange(caller, hash, Relaxed, Relaxed)
                        .map_or_else(|present| present == hash, |_| true)
        });
        free.unwrap_or_else(|| {
            self.crowded.fetch_add(1, Relaxed);
            // A set is never empty.
            cells.iter().min_by_key(|cell| cell.full_ns.load(Relaxed)).unwrap_or(&self.cells[0])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(by: Option<&str>, per_second: f64, burst: u32) -> RateLimiter {
        RateLimiter::new(&RateSpec { by: by.map(str::to_owned), per_second, burst }, 7)
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        let limiter = limiter(Some("x-tenant"), 10.0, 5);
        let let_in = |caller: &[u8], now| (0..100).filter(|_| limiter.take(caller, now).is_ok()).count();
        assert_eq!(let_in(b"a", SECOND), 5);
        assert_eq!(limiter.take(b"a", SECOND), Err(Duration::from_millis(100)));
        assert_eq!(let_in(b"b", SECOND), 5, "another caller has a bucket of its own");
        assert_eq!(let_in(b"a", SECOND + SECOND / 5), 2);
        assert_eq!(let_in(b"a", 100 * SECOND), 5, "no more than the burst is saved up");
    }

    #[test]
    fn the_longest_burst_ends() {
        let limiter = limiter(None, 0.00001, 1_000_000);
        let day = 86_400 * SECOND;
        assert!((0..200_000u64).any(|_| limiter.take(b"", day).is_err()));
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        for (per_second, burst) in [(3.0, 1), (500.0, 1_000), (333_333.3, 7)] {
            let limiter = limiter(None, per_second, burst);
            let step = (1e9 / per_second / 3.0) as u64;
            let count = (0..30_000u64).filter(|at| limiter.take(b"", 1 + at * step).is_ok()).count() as f64;
            let wanted = 10_000.0 + f64::from(burst);
            assert!((count - wanted).abs() <= 2.0 + 0.01 * wanted, "{per_second}: {count}");
        }
    }

    #[test]
    fn the_table_takes_any_number_of_callers_and_keeps_states_that_matter() {
        let limiter = limiter(Some("x-tenant"), 1.0, 2);
        let now = SECOND;
        assert!((0..2).all(|_| limiter.take(b"known", now).is_ok()));
        for caller in 0..200_000u32 {
            // Admitted or not: the table is full of other callers.
            let _ = limiter.take(&caller.to_le_bytes(), now);
        }
        assert!(limiter.crowded() > 0);
        assert!(limiter.take(b"known", now).is_err(), "its state is still there");
        // Once all are within their rate again, every cell is free.
        let crowded = limiter.crowded();
        for caller in 300_000..301_000u32 {
            assert!(limiter.take(&caller.to_le_bytes(), now + 60 * SECOND).is_ok());
        }
        assert_eq!(limiter.crowded(), crowded);
    }

    #[test]
    fn threads_together_get_no_more_than_the_burst() {
        let limiter = limiter(Some("x-tenant"), 0.001, 1_000);
        let let_in: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.take(b"a", 5).is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(let_in, 1_000);
    }
}
