//! Leaving a version alone that fails: after so many failures in a row, or when too few answers within a window are good.
//!
//! ```text
//! closed --it trips--> open, for a time that doubles --the time is over--> one request probes --good--> closed
//!                       ^-------------------------------------- failed --------------'
//! ```
//! The rules are linkerd's unified breaker. A good answer costs one count in a stripe of its thread's own; everything else
//! happens under a lock: failures, and a few dozen times in a window a look at the counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::BreakerSpec;

/// How long a version is left alone the first time, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Stripes of the count of good answers.
const STRIPES: usize = 8;
/// Moments of a window that are remembered.
const MOMENTS: u64 = 32;

/// The breaker of one version.
#[derive(Debug)]
pub struct Breaker {
    rule: BreakerSpec,
    closed: AtomicBool,
    in_row: AtomicU32,
    good: [Stripe; STRIPES],
    trips: AtomicU64,
    /// When what was good and failed is remembered next.
    due_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// How long it is left alone the next time.
    wait: Duration,
    failed: u64,
    /// What was counted at moments of the window, the oldest first.
    moments: VecDeque<CountSample>,
}

/// What had been counted at one time.
#[derive(Clone, Copy, Debug)]
struct CountSample {
    at_ns: u64,
    good: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Closed,
    Open {
        until_ns: u64,
    },
    Probing,
}

/// How a request may reach the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// As always.
    Normal,
    /// As the one that finds out whether the version works again.
    Probe,
}

/// What a request says about the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Good,
    /// It failed.
    Bad,
    /// Nothing: the client was at fault, or left.
    Neither,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rule: BreakerSpec) -> Self {
        Self {
            rule,
            closed: AtomicBool::new(true),
            in_row: AtomicU32::new(0),
            good: Default::default(),
            trips: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
            state: Mutex::new(State { wait: FIRST, ..State::default() }),
        }
    }

    /// The rule that it follows.
    pub fn rule(&self) -> &BreakerSpec {
        &self.rule
    }

    /// Whether requests reach the version.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// How often it has tripped.
    pub fn trips(&self) -> u64 {
        self.trips.load(Relaxed)
    }

    /// Whether a request may reach the version at `now_ns`; whoever gets a pass reports.
    ///
    /// # Errors
    /// How long it is left alone.
    pub fn pass(&self, now_ns: u64) -> Result<Pass, Duration> {
        if self.is_closed() {
            return Ok(Pass::Normal);
        }
        let mut state = self.state();
        match state.stage {
            Stage::Closed => Ok(Pass::Normal),
            Stage::Open { until_ns } if now_ns < until_ns => Err(Duration::from_nanos(until_ns - now_ns)),
            Stage::Open { .. } => {
                state.stage = Stage::Probing;
                Ok(Pass::Probe)
            }
            // The probe is on its way; who comes meanwhile had better look again soon.
            Stage::Probing => Err(FIRST),
        }
    }

    /// What became of a request, on thread `thread`.
    pub fn report(&self, pass: Pass, verdict: Verdict, thread: usize, now_ns: u64) {
        if now_ns >= self.due_ns.load(Relaxed) {
            self.remember(now_ns);
        }
        match (pass, verdict) {
            (Pass::Normal, Verdict::Good) => {
                self.good[thread % STRIPES].0.fetch_add(1, Relaxed);
                if self.in_row.load(Relaxed) > 0 {
                    self.in_row.store(0, Relaxed);
                }
            }
            (Pass::Normal, Verdict::Bad) => self.failed(now_ns),
            (Pass::Normal, Verdict::Neither) => {}
            (Pass::Probe, verdict) => self.probed(verdict, now_ns),
        }
    }

    fn failed(&self, now_ns: u64) {
        let mut state = self.state();
        if state.stage != Stage::Closed {
            // Begun before it tripped.
            return;
        }
        let in_row = self.in_row.fetch_add(1, Relaxed) + 1;
        state.failed += 1;
        state.forget(now_ns, self.rule.window());
        if in_row >= self.rule.consecutive || state.is_poor(self.good(), &self.rule) {
            self.open(&mut state, now_ns);
        }
    }

    fn probed(&self, verdict: Verdict, now_ns: u64) {
        let mut state = self.state();
        match verdict {
            Verdict::Good => {
                *state = State { wait: FIRST, ..State::default() };
                self.in_row.store(0, Relaxed);
                self.closed.store(true, Relaxed);
            }
            Verdict::Bad => self.open(&mut state, now_ns),
            Verdict::Neither => state.stage = Stage::Open { until_ns: now_ns },
        }
    }

    fn open(&self, state: &mut State, now_ns: u64) {
        state.stage = Stage::Open { until_ns: now_ns + state.wait.as_nanos() as u64 };
        state.wait = (2 * state.wait).min(LONGEST);
        self.closed.store(false, Relaxed);
        self.trips.fetch_add(1, Relaxed);
    }

    /// Answers that were good so far.
    fn good(&self) -> u64 {
        self.good.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }

    /// Takes the counts down, a few dozen times in a window.
    fn remember(&self, now_ns: u64) {
        let mut state = self.state();
        let window = self.rule.window();
        self.due_ns.store(now_ns + window.as_nanos() as u64 / MOMENTS, Relaxed);
        state.forget(now_ns, window);
        let failed = state.failed;
        state.moments.push_back(CountSample { at_ns: now_ns, good: self.good(), failed });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what was before the window.
    fn forget(&mut self, now_ns: u64, window: Duration) {
        let window_ns = window.as_nanos() as u64;
        while self.moments.front().is_some_and(|oldest| now_ns.saturating_sub(oldest.at_ns) > window_ns) {
            self.moments.pop_front();
        }
    }

    /// Whether too few of the answers since the oldest moment of the window are good.
    fn is_poor(&self, good: u64, rule: &BreakerSpec) -> bool {
        let Some(oldest) = self.moments.front() else { return false };
        let (good, failed) = (good.saturating_sub(oldest.good), self.failed - oldest.failed);
        let all = good + failed;
        all >= u64::from(rule.min_requests) && (good as f64) < rule.success_rate * all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSpec { consecutive: 5, success_rate: 0.8, window_ms: 10_000, min_requests: 20 })
    }

    fn report(breaker: &Breaker, verdict: Verdict, times: usize, now_ns: u64) {
        (0..times).for_each(|at| breaker.report(Pass::Normal, verdict, at, now_ns));
    }

    #[test]
    fn failures_in_a_row_trip_it_and_one_good_answer_ends_the_row() {
        let breaker = breaker();
        report(&breaker, Verdict::Bad, 4, 1);
        report(&breaker, Verdict::Good, 1, 1);
        report(&breaker, Verdict::Neither, 9, 1);
        report(&breaker, Verdict::Bad, 4, 1);
        assert_eq!(breaker.pass(1), Ok(Pass::Normal));
        report(&breaker, Verdict::Bad, 1, 1);
        assert_eq!((breaker.pass(1), breaker.trips()), (Err(Duration::from_secs(1)), 1));
    }

    #[test]
    fn one_probe_decides_and_the_time_doubles() {
        let breaker = breaker();
        report(&breaker, Verdict::Bad, 5, 0);
        let mut now = 0;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            now += seconds * SECOND;
            assert_eq!(breaker.pass(now - 1), Err(Duration::from_nanos(1)));
            assert_eq!(breaker.pass(now), Ok(Pass::Probe));
            assert!(breaker.pass(now).is_err(), "there is one probe");
            // A client that left says nothing, and the next one probes.
            breaker.report(Pass::Probe, Verdict::Neither, 0, now);
            assert_eq!(breaker.pass(now), Ok(Pass::Probe));
            breaker.report(Pass::Probe, Verdict::Bad, 0, now);
        }
        now += 60 * SECOND;
        assert_eq!(breaker.pass(now), Ok(Pass::Probe));
        breaker.report(Pass::Probe, Verdict::Good, 0, now);
        assert_eq!(breaker.pass(now), Ok(Pass::Normal));
        report(&breaker, Verdict::Bad, 4, now);
        assert_eq!(breaker.pass(now), Ok(Pass::Normal));
        report(&breaker, Verdict::Bad, 1, now);
        assert_eq!(breaker.pass(now), Err(Duration::from_secs(1)), "and the time begins anew");
    }

    #[test]
    fn too_few_good_answers_within_the_window_trip_it() {
        // Three of four are good: below 80 %, and never five failures in a row.
        let poor = breaker();
        for at in 0..30 {
            report(&poor, if at % 4 == 0 { Verdict::Bad } else { Verdict::Good }, 1, at * SECOND / 10);
        }
        assert_eq!(poor.trips(), 1);
        let good = breaker();
        for at in 0..1_000 {
            report(&good, if at % 10 == 0 { Verdict::Bad } else { Verdict::Good }, 1, at * SECOND / 10);
        }
        assert_eq!(good.trips(), 0);
        // What was good before the first failure counts as well.
        let sudden = breaker();
        report(&sudden, Verdict::Good, 500, SECOND);
        for at in 1..=8 {
            report(&sudden, Verdict::Bad, 1, SECOND + at);
            report(&sudden, Verdict::Good, 1, SECOND + at);
        }
        assert_eq!(sudden.trips(), 0);
        // Few answers say nothing, and old ones are forgotten.
        let rare = breaker();
        for at in 0..100 {
            report(&rare, if at % 2 == 0 { Verdict::Bad } else { Verdict::Good }, 1, at * SECOND);
        }
        assert_eq!(rare.trips(), 0);
    }

    #[test]
    fn what_began_before_it_tripped_changes_nothing() {
        let breaker = breaker();
        report(&breaker, Verdict::Bad, 20, 0);
        assert_eq!((breaker.trips(), breaker.pass(0)), (1, Err(Duration::from_secs(1))));
        report(&breaker, Verdict::Good, 20, 0);
        assert!(breaker.pass(0).is_err());
    }
}
