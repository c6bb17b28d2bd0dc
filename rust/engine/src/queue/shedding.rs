//! Whether a queue stands, and how much may be in it while it does.
//!
//! A queue that empties now and then absorbs a burst. One that does not is a delay for everybody: when the shortest wait within
//! [`WINDOW`] took more than [`TARGET`] of the time that its request had, the version sheds (CoDel's rule; Nichols and
//! Jacobson, 2012, with a share of each request's own time in place of a fixed target). While it sheds, the newest are run
//! first, since the oldest have the least time left, and a limit holds: with queue wait w and run time r measured apart,
//! q = ceil(L w / (w + r)) of the L in the system are waiting, and L moves as in TCP Vegas (Brakmo and Peterson, 1995) to keep q
//! small but above nothing. Nothing is probed: w and r are known. What expired counts with its wait: among those that run, the
//! newest, nobody has waited for long.
//!
//! A queue that empties ends the shedding. The limit holds on for a while: else whatever comes within the next window is let in,
//! to expire.
//!
//! Not here: the queue (`lane`).

use std::time::{Duration, Instant};

/// How long a queue is looked at before it is judged.
const WINDOW: Duration = Duration::from_millis(100);
/// The share of a request's time that may go into waiting.
const TARGET: f64 = 0.05;
/// How long the limit outlasts the shedding.
const PROBATION: Duration = Duration::from_secs(1);
/// The fewest pieces of work that the limit is moved for.
const LEAST_SAMPLES: u32 = 10;
/// The limit never lets in more than this.
const MOST: f64 = 4096.0;

/// What one version's queue has shown.
#[derive(Clone, Debug)]
pub(crate) struct Pressure {
    window_end: Option<Instant>,
    /// The least share of its time that a piece of work waited within the window.
    least: Option<f64>,
    shedding: bool,
    /// Until when the limit holds.
    limited_until: Option<Instant>,
    /// L, in pieces of work.
    limit: f64,
    lowest: f64,
    wait_ns: f64,
    run_ns: f64,
    samples: u32,
}

impl Pressure {
    /// Of a queue of which `instances` pieces run at a time.
    pub(crate) fn new(instances: usize) -> Self {
        // As many as run, and one that waits: less would leave threads idle between two runs.
        let lowest = (instances as f64 + 1.0).min(MOST);
        Self {
            window_end: None,
            least: None,
            shedding: false,
            limited_until: None,
            limit: lowest,
            lowest,
            wait_ns: 0.0,
            run_ns: 0.0,
            samples: 0,
        }
    }

    /// Whether the queue stands.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding
    }

    /// Whether another piece of work may come in while so many are queued or run.
    pub(crate) fn admits(&self, in_system: usize, now: Instant) -> bool {
        self.limited_until.is_none_or(|until| now >= until) || (in_system as f64) < self.limit
    }

    /// Whether the limit holds, or held until lately.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited_until.is_some()
    }

    /// The oldest piece of work, which had `had_ns` when it came, has waited for `wait_ns`.
    pub(crate) fn waited(&mut self, wait_ns: u64, had_ns: u64, now: Instant) {
        let share = wait_ns as f64 / had_ns.max(1) as f64;
        self.least = Some(self.least.map_or(share, |least| least.min(share)));
        if self.window_end.is_none_or(|end| now >= end) {
            // The first look at a queue begins a window and judges nothing.
            self.shedding = self.window_end.is_some() && self.least.is_some_and(|least| least > TARGET);
            self.least = None;
            self.window_end = Some(now + WINDOW);
        }
        if self.shedding {
            self.limited_until = Some(now + PROBATION);
        }
        self.limited_until = self.limited_until.filter(|until| now < *until);
    }

    /// Nothing waits any more: the queue does not stand.
    pub(crate) fn emptied(&mut self) {
        self.shedding = false;
        self.least = Some(0.0);
    }

    /// A piece of work was of no use any more after it had waited for `wait_ns`.
    pub(crate) fn expired(&mut self, wait_ns: u64) {
        self.left(wait_ns, 0);
    }

    /// A piece of work that waited for `wait_ns` ran for `run_ns`.
    pub(crate) fn ran(&mut self, wait_ns: u64, run_ns: u64) {
        self.left(wait_ns, run_ns);
    }

    fn left(&mut self, wait_ns: u64, run_ns: u64) {
        if self.limited_until.is_none() {
            return;
        }
        self.wait_ns += wait_ns as f64;
        self.run_ns += run_ns as f64;
        self.samples += 1;
        if self.samples < LEAST_SAMPLES.max(self.limit as u32) {
            return;
        }
        self.limit = moved(self.limit, self.wait_ns, self.run_ns).clamp(self.lowest, MOST);
        (self.wait_ns, self.run_ns, self.samples) = (0.0, 0.0, 0);
    }
}

/// Vegas' step for a limit under which work waited and ran for so long.
fn moved(limit: f64, wait_ns: f64, run_ns: f64) -> f64 {
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
        // 50 run at a time; with L in the system a piece of work waits for its share of the others.
        let (parallel, run) = (50.0, 20e6);
        for start in [51.0, 400.0] {
            let mut limit: f64 = start;
            for _ in 0..2000 {
                let wait = run * (limit / parallel - 1.0).max(0.0);
                limit = moved(limit, wait, run);
            }
            assert!((51.0..=58.0).contains(&limit), "{limit}");
        }
    }

    #[test]
    fn a_burst_is_absorbed_and_a_standing_queue_is_not() {
        let (ms, start) = (1_000_000, Instant::now());
        let at = |step: u32| start + Duration::from_millis(20) * step;
        let mut pressure = Pressure::new(1);
        for at in 0..30 {
            // One of four finds no queue.
            let wait = if at % 4 == 0 { 0 } else { 90 * ms };
            pressure.waited(wait, 1_000 * ms, start + Duration::from_millis(20 * at));
        }
        assert!(!pressure.is_shedding());
        for at in 30..50 {
            pressure.waited(90 * ms, 1_000 * ms, start + Duration::from_millis(20 * at));
        }
        assert!(pressure.is_shedding());
        assert!(pressure.admits(1, at(50)) && !pressure.admits(2, at(50)));
        pressure.emptied();
        assert!(!pressure.is_shedding() && !pressure.admits(1_000, at(50)));
        assert!(pressure.admits(1_000, at(150)), "the limit ends with its time");
    }

    #[test]
    fn who_has_much_time_may_wait_long() {
        let (ms, start) = (1_000_000, Instant::now());
        let mut pressure = Pressure::new(1);
        (0..50).for_each(|at| {
            pressure.waited(90 * ms, 30_000 * ms, start + Duration::from_millis(20 * at));
        });
        assert!(!pressure.is_shedding());
    }
}
