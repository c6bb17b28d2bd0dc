//! The CPU time that all shadows together may take: a token bucket that fills with a number of cores.
//!
//! A run is begun while there are tokens, and pays afterwards what it took. So the bucket may be in debt, and nothing runs until the debt is
//! paid: over time shadows take at most their share, however long a run is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_engine::Instant;

use crate::scheduling::thread_cpu_ns;

/// What the bucket holds: the tokens of this long.
const BURST: Duration = Duration::from_millis(100);
/// The period over which the use is averaged.
const PERIOD: Duration = Duration::from_secs(10);
/// How long ago copies may have waited for tokens if the budget is why a queue is full.
const LATELY: Duration = Duration::from_secs(1);

/// The CPU budget of shadows.
pub struct CpuBudget {
    cores: f64,
    bucket: Mutex<Bucket>,
    epoch: Instant,
    /// When copies had to wait for tokens last, in nanoseconds since `epoch`; 0 if they never had to.
    waited_ns: AtomicU64,
    used_ns: AtomicU64,
}

struct Bucket {
    /// The tokens, in nanoseconds; less than 0 is a debt.
    tokens_ns: f64,
    filled_at: Instant,
    period: UsePeriod,
}

/// The use within the present period, and the average of the one before.
struct UsePeriod {
    begun_at: Instant,
    used_ns: u64,
    last_cores: f64,
}

impl CpuBudget {
    /// A budget of so many cores, full at `now`.
    pub fn new(cores: f64, now: Instant) -> CpuBudget {
        let period = UsePeriod { begun_at: now, used_ns: 0, last_cores: 0.0 };
        let bucket = Bucket { tokens_ns: capacity_ns(cores), filled_at: now, period };
        CpuBudget {
            cores,
            bucket: Mutex::new(bucket),
            epoch: now,
            waited_ns: AtomicU64::new(0),
            used_ns: AtomicU64::new(0),
        }
    }

    /// The number of cores.
    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// How long a run must wait at `now`; `None` if it may begin.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.lock();
        bucket.fill(self.cores, now);
        if bucket.tokens_ns > 0.0 {
            return None;
        }
        self.waited_ns.store(now.nanos_since(self.epoch).max(1), Relaxed);
        // Without a budget nothing ever runs. The thread looks again all the same, because it must notice the stop.
        let wait_ns = if self.cores > 0.0 { (1.0 - bucket.tokens_ns) / self.cores } else { f64::MAX };
        Some(Duration::from_nanos(wait_ns.min(PERIOD.as_nanos() as f64) as u64))
    }

    /// Does work whose runs may take `threads` cores, pays for it, and adds what it took to `total_ns`.
    pub fn pay_for<R>(&self, threads: u64, total_ns: &AtomicU64, work: impl FnOnce() -> R) -> R {
        let (begun, cpu_begun) = (Instant::now(), thread_cpu_ns());
        let done = work();
        let own_ns = thread_cpu_ns().saturating_sub(cpu_begun);
        let now = Instant::now();
        // What ONNX Runtime's own threads took is not known; they may all have been busy for as long as this.
        let all_ns = now.nanos_since(begun).saturating_mul(threads);
        let cpu_ns = if threads > 1 { own_ns.max(all_ns) } else { own_ns };
        total_ns.fetch_add(cpu_ns, Relaxed);
        self.charge(cpu_ns, now);
        done
    }

    /// Takes the CPU time of a run that ended at `now` from the bucket.
    pub fn charge(&self, cpu_ns: u64, now: Instant) {
        self.used_ns.fetch_add(cpu_ns, Relaxed);
        let mut bucket = self.lock();
        // Without the bound, which is for time in which nothing ran.
        bucket.add_since(self.cores, now);
        bucket.tokens_ns -= cpu_ns as f64;
        bucket.period.used_ns += cpu_ns;
    }

    /// Whether copies had to wait for tokens at `since` or later.
    pub fn has_waited_since(&self, since: Instant) -> bool {
        let waited = self.waited_ns.load(Relaxed);
        waited > 0 && waited >= since.nanos_since(self.epoch)
    }

    /// Whether copies had to wait for tokens a moment ago.
    pub fn has_waited_lately(&self, now: Instant) -> bool {
        now.checked_sub(LATELY).is_some_and(|since| self.has_waited_since(since))
    }

    /// The CPU time that was used so far, in nanoseconds.
    pub fn used_ns(&self) -> u64 {
        self.used_ns.load(Relaxed)
    }

    /// The cores that were used on average in the last whole period.
    pub fn used_cores(&self, now: Instant) -> f64 {
        let mut bucket = self.lock();
        bucket.fill(self.cores, now);
        bucket.period.last_cores
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn fill(&mut self, cores: f64, now: Instant) {
        self.add_since(cores, now);
        self.tokens_ns = self.tokens_ns.min(capacity_ns(cores));
    }

    /// Adds the tokens of the time that has passed.
    fn add_since(&mut self, cores: f64, now: Instant) {
        let passed = now.nanos_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.tokens_ns += passed as f64 * cores;
        let period = now.saturating_duration_since(self.period.begun_at);
        if period >= PERIOD {
            let last_cores = self.period.used_ns as f64 / period.as_nanos() as f64;
            self.period = UsePeriod { begun_at: now, used_ns: 0, last_cores };
        }
    }
}

fn capacity_ns(cores: f64) -> f64 {
    cores * BURST.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_run_pays_afterwards_and_the_next_one_waits_until_the_debt_is_paid() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let budget = CpuBudget::new(0.5, start);
        assert_eq!(budget.wait(start), None);
        // 50 ms are in the bucket, and the run takes 150 ms: half a core pays the debt in 200 ms.
        budget.charge(150 * MS, start);
        let wait = budget.wait(start).unwrap();
        assert!(wait >= Duration::from_millis(200) && wait < Duration::from_millis(201), "{wait:?}");
        assert!(budget.wait(at(199)).is_some() && budget.wait(at(201)).is_none());
        assert!(budget.has_waited_since(at(199)) && !budget.has_waited_since(at(200)));
    }

    #[test]
    fn over_time_runs_take_their_share_however_long_they_are() {
        let start = Instant::now();
        for run_ms in [1, 7, 400] {
            let budget = CpuBudget::new(0.25, start);
            let (mut now, mut used_ms) = (start, 0);
            while now < start + Duration::from_secs(60) {
                match budget.wait(now) {
                    Some(wait) => now += wait,
                    None => {
                        now += Duration::from_millis(run_ms);
                        used_ms += run_ms;
                        budget.charge(run_ms * MS, now);
                    }
                }
            }
            // The burst of the beginning, and the debt of the last run, come on top.
            assert!((15_000..=15_025 + run_ms).contains(&used_ms), "runs of {run_ms} ms took {used_ms} ms");
        }
    }

    #[test]
    fn time_that_nothing_ran_in_is_not_saved_up() {
        let start = Instant::now();
        let budget = CpuBudget::new(1.0, start);
        let later = start + Duration::from_secs(3_600);
        assert_eq!(budget.wait(later), None);
        budget.charge(101 * MS, later);
        assert!(budget.wait(later).is_some());
    }

    #[test]
    fn work_on_threads_of_the_runtime_pays_for_all_of_them() {
        let budget = CpuBudget::new(1.0, Instant::now());
        let (one, eight) = (AtomicU64::new(0), AtomicU64::new(0));
        let spin = || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1) {}
            begun.elapsed().as_nanos() as u64
        };
        let took = budget.pay_for(8, &eight, spin);
        budget.pay_for(1, &one, spin);
        assert!(eight.load(Relaxed) >= 8 * took && one.load(Relaxed) > 0);
        assert_eq!(budget.used_ns(), one.load(Relaxed) + eight.load(Relaxed));
    }

    #[test]
    fn without_a_budget_nothing_runs() {
        let start = Instant::now();
        let budget = CpuBudget::new(0.0, start);
        assert_eq!(budget.wait(start + Duration::from_secs(3_600)), Some(PERIOD));
    }

    #[test]
    fn the_use_is_that_of_the_last_whole_period() {
        let start = Instant::now();
        let budget = CpuBudget::new(1.0, start);
        budget.charge(2_000 * MS, start + Duration::from_secs(1));
        assert_eq!(budget.used_cores(start + Duration::from_secs(9)), 0.0);
        assert_eq!(budget.used_cores(start + PERIOD), 0.2);
        assert_eq!(budget.used_cores(start + 2 * PERIOD), 0.0);
        assert_eq!(budget.used_ns(), 2_000 * MS);
    }
}
