//! Where a version runs: on the IO thread that holds the request, or on a pool thread, alone or together with others.
//!
//! A hop to another thread costs 4 to 6 microseconds, and 60 if that core sleeps, so a shorter run stays where it is. A version starts in
//! the pool. It moves inline when its runs are short, and back when they are not. The two thresholds lie apart, so that it does not
//! flutter. A version that stalls an IO thread stays in the pool for a while.
//!
//! Short runs that would be cheaper together move to the pool when they keep the IO threads busy. They come back when requests do not
//! come at the same time: one client that sends request after request looks like many until batches are tried.
//!
//! Not here: the measuring (`batching/cost_curve`, core's `histogram`) and the runs. Next: `model`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_core::spec::PlacementRule;

use crate::batching::BatchSummary;
use headgate_core::histogram::Counts;

/// A version moves inline if the 99th percentile of its runs is below this, in nanoseconds.
const INLINE_BELOW_NS: u64 = 50_000;
/// A version moves to the pool if the 99th percentile of its runs is above this, in nanoseconds.
const POOL_ABOVE_NS: u64 = 150_000;
/// An inline run that lasts this long stalls its IO thread, in nanoseconds.
pub const STALL_NS: u64 = 10_000_000;
/// How long a version stays in the pool after a stall, or inline after batches of one request each, in nanoseconds.
const PENALTY_NS: u64 = 60_000_000_000;
/// The fewest runs that a decision needs.
pub const MIN_RUNS: u64 = 20;
/// What a hop to another thread and back costs, in nanoseconds.
const HOP_NS: f64 = 6_000.0;
/// If inline runs take a larger share of the IO threads' time, batches are tried.
const BUSY_SHARE: f64 = 0.5;
/// Batches with fewer rows on average mostly hold one request.
const MIN_MEAN_ROWS: f64 = 1.5;

/// Reasons that are given in more than one place.
const CONFIGURED: &str = "run.placement is written";
const STALLED: &str = "a run of it held an IO thread up within the last minute";

/// Where a run happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Placement {
    /// On a pool thread.
    #[default]
    Pool = 0,
    /// On the IO thread that holds the request.
    Inline = 1,
    /// On a pool thread, together with others.
    Batch = 2,
}

impl Placement {
    /// The word in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Placement::Pool => "pool",
            Placement::Inline => "inline",
            Placement::Batch => "batched",
        }
    }
}

/// What a placement is decided from.
#[derive(Clone, Copy, Debug)]
pub struct PlacementEvidence<'a> {
    /// The newest runs. A run of a batch counts for each of its requests.
    pub runs: &'a Counts,
    /// The share of the IO threads' time that these runs took, if they were inline.
    pub busy: f64,
    /// Its batches, if its requests may be run together.
    pub batches: Option<BatchSummary>,
}

/// Whether four rows together cost a quarter less than four runs alone, the hop included.
fn batches_pay(batches: &BatchSummary) -> bool {
    batches.cost.is_some_and(|cost| 0.75 * cost.fixed_ns - HOP_NS > 0.25 * cost.expected_ns(1))
}

fn are_mostly_single(batches: &BatchSummary) -> bool {
    batches.rows.is_none_or(|rows| rows < MIN_MEAN_ROWS)
}

/// The last decision, its reason, and what it was made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlacementDecision {
    /// The reason, in words.
    pub reason: &'static str,
    /// The number of runs.
    pub runs: u64,
    /// Their 99th percentile, in nanoseconds.
    pub p99_ns: u64,
    /// As [`PlacementEvidence::busy`].
    pub busy: f64,
    /// The mean rows of its batches, if there were any.
    pub batch_rows: Option<f64>,
}

/// Decides the placement of a version. One thread decides, and every thread reads.
#[derive(Debug, Default)]
pub struct PlacementPolicy {
    placement: AtomicU8,
    /// The placement that its configuration asks for.
    home: Placement,
    decided: Mutex<Option<PlacementDecision>>,
    /// Whether there was a decision.
    is_decided: AtomicBool,
    /// Why nothing is decided: the placement is configured, or follows from the configuration.
    fixed_reason: Option<&'static str>,
    /// Until when it may not run inline, and until when batches are not tried.
    pool_only_until_ns: AtomicU64,
    unbatched_until_ns: AtomicU64,
}

impl PlacementPolicy {
    /// The policy for a configured rule.
    pub fn new(rule: PlacementRule) -> Self {
        let placement = if rule == PlacementRule::Inline { Placement::Inline } else { Placement::Pool };
        let fixed_reason = (rule != PlacementRule::Auto).then_some(CONFIGURED);
        Self { placement: AtomicU8::new(placement as u8), home: placement, fixed_reason, ..Self::default() }
    }

    /// The pool, for that reason.
    pub fn fixed_to_pool(reason: &'static str) -> Self {
        Self { fixed_reason: Some(reason), ..Self::new(PlacementRule::Pool) }
    }

    /// Inline, for that reason.
    pub fn fixed_inline(reason: &'static str) -> Self {
        Self { fixed_reason: Some(reason), ..Self::new(PlacementRule::Inline) }
    }

    /// Whether the placement is configured.
    pub fn is_configured(&self) -> bool {
        self.fixed_reason == Some(CONFIGURED)
    }

    /// Where to run now.
    pub fn get(&self) -> Placement {
        if self.placement.load(Relaxed) == Placement::Inline as u8 {
            Placement::Inline
        } else {
            Placement::Pool
        }
    }

    /// Decides from the newest runs. `now_ns` is any monotonic clock. Too few runs change nothing.
    pub fn decide(&self, evidence: PlacementEvidence<'_>, now_ns: u64) -> Placement {
        let Some(p99_ns) = evidence.runs.quantile_ns(0.99).filter(|_| evidence.runs.total() >= MIN_RUNS)
        else {
            return self.get();
        };
        let (placement, reason) = match (self.get(), self.fixed_reason) {
            (_, Some(_))
                if self.home == Placement::Inline && now_ns < self.pool_only_until_ns.load(Relaxed) =>
            {
                (Placement::Pool, STALLED)
            }
            (_, Some(reason)) => (self.home, reason),
            (Placement::Inline, None) => self.decide_inline(evidence, p99_ns, now_ns),
            (_, None) => self.decide_pooled(evidence, p99_ns, now_ns),
        };
        self.placement.store(placement as u8, Relaxed);
        let batch_rows = evidence.batches.and_then(|batches| batches.rows);
        let decided = PlacementDecision {
            reason,
            runs: evidence.runs.total(),
            p99_ns,
            busy: evidence.busy,
            batch_rows,
        };
        *self.lock_decision() = Some(decided);
        self.is_decided.store(true, Relaxed);
        placement
    }

    /// Whether its runs happen where they belong: the placement is configured, or was decided from enough runs.
    pub fn is_settled(&self) -> bool {
        self.fixed_reason.is_some() || self.is_decided.load(Relaxed)
    }

    /// The last decision; `None` before there were enough runs.
    pub fn last_decision(&self) -> Option<PlacementDecision> {
        *self.lock_decision()
    }

    fn lock_decision(&self) -> MutexGuard<'_, Option<PlacementDecision>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide_inline(
        &self,
        evidence: PlacementEvidence<'_>,
        p99: u64,
        now_ns: u64,
    ) -> (Placement, &'static str) {
        let together = evidence.batches.as_ref().is_some_and(batches_pay)
            && evidence.busy > BUSY_SHARE
            && now_ns >= self.unbatched_until_ns.load(Relaxed);
        if p99 > POOL_ABOVE_NS {
            (Placement::Pool, "its runs take more than 150 us (p99)")
        } else if together {
            (Placement::Pool, "it keeps the IO threads busy, and rows together would be cheaper")
        } else {
            (Placement::Inline, "its runs take less than 150 us (p99)")
        }
    }

    fn decide_pooled(
        &self,
        evidence: PlacementEvidence<'_>,
        p99: u64,
        now_ns: u64,
    ) -> (Placement, &'static str) {
        // Runs of batches say little about a run alone, so the fitted cost is used.
        let cost = evidence.batches.and_then(|batches| batches.cost);
        let single_ns = cost.map_or(p99, |cost| cost.expected_ns(1) as u64);
        if now_ns < self.pool_only_until_ns.load(Relaxed) {
            return (Placement::Pool, STALLED);
        }
        if single_ns > INLINE_BELOW_NS {
            return (Placement::Pool, "a run alone takes more than 50 us");
        }
        let Some(batches) = evidence.batches.filter(batches_pay) else {
            return (Placement::Inline, "a run alone takes less than 50 us");
        };
        if !are_mostly_single(&batches) {
            return (Placement::Pool, "its requests come together, and rows together are cheaper");
        }
        if batches.rows.is_some() {
            self.unbatched_until_ns.store(now_ns + PENALTY_NS, Relaxed);
        }
        (Placement::Inline, "a run alone takes less than 50 us, and its requests come one by one")
    }

    /// Takes a version off the IO threads at once, because one of its runs stalled one.
    pub fn demote(&self, now_ns: u64) {
        self.pool_only_until_ns.store(now_ns + PENALTY_NS, Relaxed);
        self.placement.store(Placement::Pool as u8, Relaxed);
        if let Some(decided) = &mut *self.lock_decision() {
            decided.reason = STALLED;
        }
    }

    /// Puts a version back where it is configured to run, if it has been off the IO threads for long enough.
    pub fn recover(&self, now_ns: u64) {
        if self.home == Placement::Inline
            && self.get() != Placement::Inline
            && now_ns >= self.pool_only_until_ns.load(Relaxed)
        {
            self.placement.store(Placement::Inline as u8, Relaxed);
        }
    }

    /// Puts a version inline without measuring. Its runs must do no work.
    pub fn pin_inline(&self) {
        self.placement.store(Placement::Inline as u8, Relaxed);
        self.is_decided.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::RunCost;
    use headgate_core::histogram::Histogram;

    fn runs(ns: u64, count: u64) -> Counts {
        let histogram = Histogram::default();
        for _ in 0..count {
            histogram.record(ns);
        }
        let mut counts = Counts::default();
        histogram.add_to(&mut counts);
        counts
    }

    fn evidence(runs: &Counts) -> PlacementEvidence<'_> {
        PlacementEvidence { runs, busy: 0.0, batches: None }
    }

    #[test]
    fn short_runs_move_inline_and_long_ones_back_with_room_between() {
        let policy = PlacementPolicy::default();
        let decide = |ns, count| policy.decide(evidence(&runs(ns, count)), 0);
        assert_eq!(decide(2_000, MIN_RUNS - 1), Placement::Pool);
        assert_eq!(decide(2_000, MIN_RUNS), Placement::Inline);
        assert_eq!(decide(100_000, MIN_RUNS), Placement::Inline);
        assert_eq!(decide(200_000, MIN_RUNS), Placement::Pool);
        let decided = policy.last_decision().unwrap();
        assert_eq!((decided.runs, decided.reason), (MIN_RUNS, "its runs take more than 150 us (p99)"));
        assert!((200_000..=250_000).contains(&decided.p99_ns), "{decided:?}");
        assert_eq!(decide(100_000, MIN_RUNS), Placement::Pool);
    }

    #[test]
    fn a_place_that_is_written_down_stays() {
        for (rule, placement) in
            [(PlacementRule::Inline, Placement::Inline), (PlacementRule::Pool, Placement::Pool)]
        {
            let policy = PlacementPolicy::new(rule);
            let ns = if placement == Placement::Inline { 9_000_000 } else { 2_000 };
            assert_eq!(policy.decide(evidence(&runs(ns, 100)), 0), placement);
            // A version that stalls an IO thread leaves it for a while, even if it is configured to run there.
            policy.demote(0);
            assert_eq!(
                (policy.get(), policy.decide(evidence(&runs(ns, 100)), 1)),
                (Placement::Pool, Placement::Pool)
            );
            policy.recover(PENALTY_NS - 1);
            assert_eq!(policy.get(), Placement::Pool);
            policy.recover(PENALTY_NS);
            assert_eq!(policy.get(), placement);
        }
    }

    #[test]
    fn what_does_no_work_stays_inline_however_long_it_seems_to_take() {
        let policy = PlacementPolicy::fixed_inline("it does no work");
        assert_eq!(policy.decide(evidence(&runs(9_000_000, 100)), 0), Placement::Inline);
        assert_eq!(
            (policy.last_decision().unwrap().reason, policy.is_configured()),
            ("it does no work", false)
        );
    }

    #[test]
    fn a_stall_bars_for_a_while() {
        let policy = PlacementPolicy::default();
        let decide = |now| policy.decide(evidence(&runs(2_000, 100)), now);
        decide(0);
        policy.demote(1_000);
        assert_eq!(policy.last_decision().unwrap().reason, STALLED);
        assert_eq!(decide(PENALTY_NS), Placement::Pool);
        assert_eq!(decide(PENALTY_NS + 1_000), Placement::Inline);
    }

    /// Decides for a version with batches: the cost of a run and of a row, the share of time, and the mean rows of its batches.
    fn together(
        policy: &PlacementPolicy,
        cost: (f64, f64),
        busy: f64,
        rows: Option<f64>,
        now: u64,
    ) -> Placement {
        let cost = Some(RunCost { fixed_ns: cost.0, row_ns: cost.1 });
        let runs = runs(40_000, 100);
        policy
            .decide(PlacementEvidence { runs: &runs, busy, batches: Some(BatchSummary { cost, rows }) }, now)
    }

    #[test]
    fn short_runs_that_are_cheaper_together_go_there_while_they_come_together() {
        let policy = PlacementPolicy::default();
        let decide = |busy, rows, now| together(&policy, (40_000.0, 1_000.0), busy, rows, now);
        assert_eq!(decide(0.1, None, 0), Placement::Inline);
        assert_eq!(decide(0.4, None, 1), Placement::Inline);
        assert_eq!(decide(0.9, None, 2), Placement::Pool);
        assert_eq!(decide(0.9, Some(8.0), 3), Placement::Pool);
        // Requests come one by one again. The version is busy, and batches are not tried for a while.
        assert_eq!(decide(0.9, Some(1.1), 4), Placement::Inline);
        assert_eq!(decide(0.9, None, PENALTY_NS), Placement::Inline);
        assert_eq!(decide(0.9, None, PENALTY_NS + 4), Placement::Pool);
    }

    #[test]
    fn runs_whose_rows_are_the_cost_or_that_cost_less_than_a_hop_stay_inline() {
        for cost in [(2_000.0, 100.0), (9_000.0, 100.0), (15_000.0, 30_000.0)] {
            let policy = PlacementPolicy::default();
            for now in 0..3 {
                assert_eq!(together(&policy, cost, 1.0, Some(8.0), now), Placement::Inline, "{cost:?}");
            }
        }
    }

    #[test]
    fn runs_that_are_long_alone_are_never_inline() {
        let policy = PlacementPolicy::default();
        assert_eq!(together(&policy, (60_000.0, 1_000.0), 0.0, Some(1.0), 0), Placement::Pool);
    }
}
