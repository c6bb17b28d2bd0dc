//! A circuit breaker for each version: it opens after a number of failures in a row, or when too few responses of a window are good.
//!
//! ```text
//! closed --it trips--> open, for a time that doubles --the time is over--> one request probes --good--> closed
//!                       ^-------------------------------------- failed --------------'
//! ```
//! The rules are those of linkerd's unified breaker. A success costs one atomic add in a stripe, which few threads share. Failures
//! take a lock, and so does a sample of the counts, a few dozen times in a window.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::BreakerSpec;

/// How long the breaker is open the first time, and at most.
const FIRST_OPEN: Duration = Duration::from_secs(1);
const LONGEST_OPEN: Duration = Duration::from_secs(60);
/// Stripes of the count of successes.
const STRIPES: usize = 8;
/// Samples of the counts in a window.
const SAMPLES: u64 = 32;

/// The breaker of one version.
#[derive(Debug)]
pub struct Breaker {
    rule: BreakerSpec,
    closed: AtomicBool,
    failures_in_row: AtomicU32,
    successes: [Stripe; STRIPES],
    trips: AtomicU64,
    /// When the next sample is due.
    due_ns: AtomicU64,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

#[derive(Debug, Default)]
struct BreakerState {
    stage: BreakerStage,
    /// How long the breaker is open the next time.
    wait: Duration,
    failures: u64,
    /// The samples of the window, the oldest first.
    samples: VecDeque<CountSample>,
}

/// The counts at one time.
#[derive(Clone, Copy, Debug)]
struct CountSample {
    at_ns: u64,
    successes: u64,
    failures: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BreakerStage {
    #[default]
    Closed,
    Open {
        until_ns: u64,
    },
    Probing,
}

/// How a request may reach the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerPermit {
    /// The breaker is closed.
    Normal,
    /// This request finds out whether the version works again.
    Probe,
}

/// What the outcome of a request says about the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// The version answered.
    Success,
    /// The version failed.
    Failure,
    /// Nothing: the client was at fault, or it left.
    Neutral,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rule: BreakerSpec) -> Self {
        Self {
            rule,
            closed: AtomicBool::new(true),
            failures_in_row: AtomicU32::new(0),
            successes: Default::default(),
            trips: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
            state: Mutex::new(BreakerState { wait: FIRST_OPEN, ..BreakerState::default() }),
        }
    }

    /// The rule of this breaker.
    pub fn rule(&self) -> &BreakerSpec {
        &self.rule
    }

    /// Whether all requests reach the version.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// How often this breaker has tripped.
    pub fn trips(&self) -> u64 {
        self.trips.load(Relaxed)
    }

    /// A permit for a request at `now_ns`; the caller must [`report`](Breaker::report) the outcome with it.
    ///
    /// # Errors
    /// How long the breaker stays open.
    pub fn permit(&self, now_ns: u64) -> Result<BreakerPermit, Duration> {
        if self.is_closed() {
            return Ok(BreakerPermit::Normal);
        }
        let mut state = self.state();
        match state.stage {
            BreakerStage::Closed => Ok(BreakerPermit::Normal),
            BreakerStage::Open { until_ns } if now_ns < until_ns => {
                Err(Duration::from_nanos(until_ns - now_ns))
            }
            BreakerStage::Open { .. } => {
                state.stage = BreakerStage::Probing;
                Ok(BreakerPermit::Probe)
            }
            // The outcome of the probe is not known yet. It may be soon, so the wait is short.
            BreakerStage::Probing => Err(FIRST_OPEN),
        }
    }

    /// Takes in the outcome of a request, which ran on thread `thread`.
    pub fn report(&self, permit: BreakerPermit, signal: HealthSignal, thread: usize, now_ns: u64) {
        if now_ns >= self.due_ns.load(Relaxed) {
            self.take_sample(now_ns);
        }
        match (permit, signal) {
            (BreakerPermit::Normal, HealthSignal::Success) => {
                self.successes[thread % STRIPES].0.fetch_add(1, Relaxed);
                if self.failures_in_row.load(Relaxed) > 0 {
                    self.failures_in_row.store(0, Relaxed);
                }
            }
            (BreakerPermit::Normal, HealthSignal::Failure) => self.count_failure(now_ns),
            (BreakerPermit::Normal, HealthSignal::Neutral) => {}
            (BreakerPermit::Probe, signal) => self.end_probe(signal, now_ns),
        }
    }

    fn count_failure(&self, now_ns: u64) {
        let mut state = self.state();
        if state.stage != BreakerStage::Closed {
            // The request began before the breaker tripped.
            return;
        }
        let failures_in_row = self.failures_in_row.fetch_add(1, Relaxed) + 1;
        state.failures += 1;
        state.drop_old_samples(now_ns, self.rule.window());
        if failures_in_row >= self.rule.consecutive
            || state.is_below_success_rate(self.successes(), &self.rule)
        {
            self.open(&mut state, now_ns);
        }
    }

    fn end_probe(&self, signal: HealthSignal, now_ns: u64) {
        let mut state = self.state();
        match signal {
            HealthSignal::Success => {
                *state = BreakerState { wait: FIRST_OPEN, ..BreakerState::default() };
                self.failures_in_row.store(0, Relaxed);
                self.closed.store(true, Relaxed);
            }
            HealthSignal::Failure => self.open(&mut state, now_ns),
            HealthSignal::Neutral => state.stage = BreakerStage::Open { until_ns: now_ns },
        }
    }

    fn open(&self, state: &mut BreakerState, now_ns: u64) {
        state.stage = BreakerStage::Open { until_ns: now_ns + state.wait.as_nanos() as u64 };
        state.wait = (2 * state.wait).min(LONGEST_OPEN);
        self.closed.store(false, Relaxed);
        self.trips.fetch_add(1, Relaxed);
    }

    /// The successes so far.
    fn successes(&self) -> u64 {
        self.successes.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }

    /// Adds a sample of the counts, and says when the next is due.
    fn take_sample(&self, now_ns: u64) {
        let mut state = self.state();
        let window = self.rule.window();
        self.due_ns.store(now_ns + window.as_nanos() as u64 / SAMPLES, Relaxed);
        state.drop_old_samples(now_ns, window);
        let failures = state.failures;
        state.samples.push_back(CountSample { at_ns: now_ns, successes: self.successes(), failures });
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    /// Drops the samples from before the window.
    fn drop_old_samples(&mut self, now_ns: u64, window: Duration) {
        let window_ns = window.as_nanos() as u64;
        while self.samples.front().is_some_and(|oldest| now_ns.saturating_sub(oldest.at_ns) > window_ns) {
            self.samples.pop_front();
        }
    }

    /// Whether too few of the responses since the oldest sample are successes.
    fn is_below_success_rate(&self, successes: u64, rule: &BreakerSpec) -> bool {
        let Some(oldest) = self.samples.front() else { return false };
        let (successes, failures) =
            (successes.saturating_sub(oldest.successes), self.failures - oldest.failures);
        let all = successes + failures;
        all >= u64::from(rule.min_requests) && (successes as f64) < rule.success_rate * all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSpec { consecutive: 5, success_rate: 0.8, window_ms: 10_000, min_requests: 20 })
    }

    fn report(breaker: &Breaker, signal: HealthSignal, times: usize, now_ns: u64) {
        (0..times).for_each(|at| breaker.report(BreakerPermit::Normal, signal, at, now_ns));
    }

    #[test]
    fn consecutive_failures_trip_the_breaker_and_a_success_ends_the_row() {
        let breaker = breaker();
        report(&breaker, HealthSignal::Failure, 4, 1);
        report(&breaker, HealthSignal::Success, 1, 1);
        report(&breaker, HealthSignal::Neutral, 9, 1);
        report(&breaker, HealthSignal::Failure, 4, 1);
        assert_eq!(breaker.permit(1), Ok(BreakerPermit::Normal));
        report(&breaker, HealthSignal::Failure, 1, 1);
        assert_eq!((breaker.permit(1), breaker.trips()), (Err(Duration::from_secs(1)), 1));
    }

    #[test]
    fn one_probe_decides_and_the_open_time_doubles() {
        let breaker = breaker();
        report(&breaker, HealthSignal::Failure, 5, 0);
        let mut now = 0;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            now += seconds * SECOND;
            assert_eq!(breaker.permit(now - 1), Err(Duration::from_nanos(1)));
            assert_eq!(breaker.permit(now), Ok(BreakerPermit::Probe));
            assert!(breaker.permit(now).is_err(), "there is one probe");
            // A client that left says nothing, so the next request probes.
            breaker.report(BreakerPermit::Probe, HealthSignal::Neutral, 0, now);
            assert_eq!(breaker.permit(now), Ok(BreakerPermit::Probe));
            breaker.report(BreakerPermit::Probe, HealthSignal::Failure, 0, now);
        }
        now += 60 * SECOND;
        assert_eq!(breaker.permit(now), Ok(BreakerPermit::Probe));
        breaker.report(BreakerPermit::Probe, HealthSignal::Success, 0, now);
        assert_eq!(breaker.permit(now), Ok(BreakerPermit::Normal));
        report(&breaker, HealthSignal::Failure, 4, now);
        assert_eq!(breaker.permit(now), Ok(BreakerPermit::Normal));
        report(&breaker, HealthSignal::Failure, 1, now);
        assert_eq!(breaker.permit(now), Err(Duration::from_secs(1)), "and the time begins anew");
    }

    #[test]
    fn a_low_success_rate_within_the_window_trips_the_breaker() {
        // Three of four are good: below 80 %, and never five failures in a row.
        let poor = breaker();
        for at in 0..30 {
            report(
                &poor,
                if at % 4 == 0 { HealthSignal::Failure } else { HealthSignal::Success },
                1,
                at * SECOND / 10,
            );
        }
        assert_eq!(poor.trips(), 1);
        let successes = breaker();
        for at in 0..1_000 {
            report(
                &successes,
                if at % 10 == 0 { HealthSignal::Failure } else { HealthSignal::Success },
                1,
                at * SECOND / 10,
            );
        }
        assert_eq!(successes.trips(), 0);
        // Successes before the first failure count as well.
        let sudden = breaker();
        report(&sudden, HealthSignal::Success, 500, SECOND);
        for at in 1..=8 {
            report(&sudden, HealthSignal::Failure, 1, SECOND + at);
            report(&sudden, HealthSignal::Success, 1, SECOND + at);
        }
        assert_eq!(sudden.trips(), 0);
        // Few responses say nothing, and old ones are dropped.
        let rare = breaker();
        for at in 0..100 {
            report(
                &rare,
                if at % 2 == 0 { HealthSignal::Failure } else { HealthSignal::Success },
                1,
                at * SECOND,
            );
        }
        assert_eq!(rare.trips(), 0);
    }

    #[test]
    fn outcomes_of_requests_from_before_the_trip_change_nothing() {
        let breaker = breaker();
        report(&breaker, HealthSignal::Failure, 20, 0);
        assert_eq!((breaker.trips(), breaker.permit(0)), (1, Err(Duration::from_secs(1))));
        report(&breaker, HealthSignal::Success, 20, 0);
        assert!(breaker.permit(0).is_err());
    }
}
