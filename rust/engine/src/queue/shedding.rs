//! Finds out whether a queue is overloaded, and limits how much may be in it while it is.
//!
//! A queue that empties now and then absorbs a burst. One that does not empty delays every request. A version sheds if the shortest wait
//! within [`WINDOW`] was more than [`TARGET`] of the time that its request had. This is CoDel's rule (Nichols and Jacobson, 2012), with a
//! share of each request's own time in place of a fixed target.
//!
//! While a version sheds, the newest run first, since the oldest have the least time left. And a limit holds: with queue wait w and run
//! time r measured apart, q = ceil(L w / (w + r)) of the L items in the system are waiting, and L moves as in TCP Vegas (Brakmo and
//! Peterson, 1995) to keep q small but above zero. No run is made to measure, since w and r are known. An expired item counts with its
//! wait: the items that run are the newest, and have not waited for long.
//!
//! Shedding ends when the queue is empty. The limit holds for a while longer: without it, everything that comes within the next window
//! would be admitted and would expire.
//!
//! Not here: the queue (`run_queue`).

use std::time::Duration;

use crate::time::Instant;

/// How long a queue is observed before it is judged.
const WINDOW: Duration = Duration::from_millis(100);
/// The share of a request's time that it may wait.
const TARGET: f64 = 0.05;
/// How long the limit holds after the shedding.
const PROBATION: Duration = Duration::from_secs(1);
/// The fewest finished items after which the limit moves.
const MIN_SAMPLES: u32 = 10;
/// The highest limit.
const MAX_LIMIT: f64 = 4096.0;

/// The wait and run times of one class of a queue, and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct QueuePressure {
    window_end: Option<Instant>,
    /// The smallest share of its time that an item waited within the window.
    least_share: Option<f64>,
    is_shedding: bool,
    /// Until when the limit holds.
    limited_until: Option<Instant>,
    /// L, in items.
    limit: f64,
    min_limit: f64,
    wait_ns: f64,
    run_ns: f64,
    samples: u32,
}

impl QueuePressure {
    /// The pressure of a queue of which `instances` items run at a time.
    pub(crate) fn new(instances: usize) -> Self {
        // As many as run, and one that waits: with fewer, threads would be idle between two runs.
        let min_limit = (instances as f64 + 1.0).min(MAX_LIMIT);
        Self {
            window_end: None,
            least_share: None,
            is_shedding: false,
            limited_until: None,
            limit: min_limit,
            min_limit,
            wait_ns: 0.0,
            run_ns: 0.0,
            samples: 0,
        }
    }

    /// Whether the queue is overloaded.
    pub(crate) fn is_shedding(&self) -> bool {
        self.is_shedding
    }

    /// Whether another item may come in while `in_system` are queued or run.
    pub(crate) fn admits(&self, in_system: usize, now: Instant) -> bool {
        self.limited_until.is_none_or(|until| now >= until) || (in_system as f64) < self.limit
    }

    /// Whether the limit holds, or has held until lately.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited_until.is_some()
    }

    /// Records that the oldest item has waited for `wait_ns` of the `had_ns` that it had when it was queued.
    pub(crate) fn record_wait(&mut self, wait_ns: u64, had_ns: u64, now: Instant) {
        let share = wait_ns as f64 / had_ns.max(1) as f64;
        self.least_share = Some(self.least_share.map_or(share, |least| least.min(share)));
        if self.window_end.is_none_or(|end| now >= end) {
            // The first record begins a window, and judges nothing.
            self.is_shedding =
                self.window_end.is_some() && self.least_share.is_some_and(|least| least > TARGET);
            self.least_share = None;
            self.window_end = Some(now + WINDOW);
        }
        if self.is_shedding {
            self.limited_until = Some(now + PROBATION);
        }
        self.limited_until = self.limited_until.filter(|until| now < *until);
    }

    /// Records that nothing waits any more, so that the queue is not overloaded.
    pub(crate) fn record_empty(&mut self) {
        self.is_shedding = false;
        self.least_share = Some(0.0);
    }

    /// Records that an item expired after a wait of `wait_ns`.
    pub(crate) fn record_expired(&mut self, wait_ns: u64) {
        self.record(wait_ns, 0);
    }

    /// Records that an item waited for `wait_ns` and ran for `run_ns`.
    pub(crate) fn record_run(&mut self, wait_ns: u64, run_ns: u64) {
        self.record(wait_ns, run_ns);
    }

    fn record(&mut self, wait_ns: u64, run_ns: u64) {
        if self.limited_until.is_none() {
            return;
        }
        self.wait_ns += wait_ns as f64;
        self.run_ns += run_ns as f64;
        self.samples += 1;
        if self.samples < MIN_SAMPLES.max(self.limit as u32) {
            return;
        }
        self.limit = adjusted_limit(self.limit, self.wait_ns, self.run_ns).clamp(self.min_limit, MAX_LIMIT);
        (self.wait_ns, self.run_ns, self.samples) = (0.0, 0.0, 0);
    }
}

/// The limit after one step of Vegas; under the present one, items waited and ran for so long.
fn adjusted_limit(limit: f64, wait_ns: f64, run_ns: f64) -> f64 {
    let queued = (limit * wait_ns / (wait_ns + run_ns).max(1.0)).ceil();
    let step = limit.log10().floor().max(1.0);
    if queued <= step {
        limit + 6.0 * step
    } else if queued < 3.0 * step {
        limit + step
    } else if queued > 6.0 * step {
        limit - step
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_settles_a_few_above_what_runs() {
        // 50 run at a time. With L in the system, an item waits for its share of the others.
        let (parallel, run) = (50.0, 20e6);
        for start in [51.0, 400.0] {
            let mut limit: f64 = start;
            for _ in 0..2000 {
                let wait = run * (limit / parallel - 1.0).max(0.0);
                limit = adjusted_limit(limit, wait, run);
            }
            assert!((51.0..=58.0).contains(&limit), "{limit}");
        }
    }

    #[test]
    fn a_burst_is_absorbed_and_a_standing_queue_is_not() {
        let (ms, start) = (1_000_000, Instant::now());
        let at = |step: u32| start + Duration::from_millis(20) * step;
        let mut pressure = QueuePressure::new(1);
        for at in 0..30 {
            // One item of four finds an empty queue.
            let wait = if at % 4 == 0 { 0 } else { 90 * ms };
            pressure.record_wait(wait, 1_000 * ms, start + Duration::from_millis(20 * at));
        }
        assert!(!pressure.is_shedding());
        for at in 30..50 {
            pressure.record_wait(90 * ms, 1_000 * ms, start + Duration::from_millis(20 * at));
        }
        assert!(pressure.is_shedding());
        assert!(pressure.admits(1, at(50)) && !pressure.admits(2, at(50)));
        pressure.record_empty();
        assert!(!pressure.is_shedding() && !pressure.admits(1_000, at(50)));
        assert!(pressure.admits(1_000, at(150)), "the limit ends with its time");
    }

    #[test]
    fn who_has_much_time_may_wait_long() {
        let (ms, start) = (1_000_000, Instant::now());
        let mut pressure = QueuePressure::new(1);
        (0..50).for_each(|at| {
            pressure.record_wait(90 * ms, 30_000 * ms, start + Duration::from_millis(20 * at));
        });
        assert!(!pressure.is_shedding());
    }
}
