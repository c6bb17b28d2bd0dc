//! Where a version runs: on the IO thread that holds the request, or on a pool thread, alone or together with others.
//!
//! A hop to another thread costs 4 to 6 microseconds, 60 when that core sleeps; a run that is shorter goes nowhere. A version
//! starts in the pool, moves inline when its runs are measured to be short, and moves back when they are not; the two
//! thresholds lie apart so that it does not flutter. Whoever stalls an IO thread once stays in the pool for a while.
//!
//! Short runs that would be cheaper together go to the pool when they keep the IO threads busy, and come back when nobody
//! comes at the same time: one client that asks again and again looks like many until it is tried.
//!
//! Not here: the measuring (`histogram`, `curve`) and the runs (`model`, `pool`). Next: `model`.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_core::spec::PlacementRule;

use crate::batching::Batches;
use headgate_core::histogram::Counts;

/// Runs with a 99th percentile below this move inline, in nanoseconds.
const INLINE_BELOW_NS: u64 = 50_000;
/// Runs with a 99th percentile above this move to the pool, in nanoseconds.
const POOL_ABOVE_NS: u64 = 150_000;
/// An inline run that lasts this long stalls its IO thread, in nanoseconds.
pub const STALL_NS: u64 = 10_000_000;
/// How long a version stays in the pool after a stall, or inline after batches that held one request each, in nanoseconds.
const PENALTY_NS: u64 = 60_000_000_000;
/// The fewest runs that say anything.
pub const MIN_RUNS: u64 = 20;
/// What a hop to another thread and back costs, in nanoseconds.
const HOP_NS: f64 = 6_000.0;
/// Inline runs that take a larger share of the IO threads' time are tried together.
const BUSY: f64 = 0.5;
/// Batches with fewer rows on average hold requests that came alone.
const LONELY_ROWS: f64 = 1.5;

/// Reasons that are given in more than one place.
const WRITTEN: &str = "run.placement is written";
const STALLED: &str = "a run of it held an IO thread up within the last minute";

/// Where to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// On a pool thread.
    #[default]
    Pool = 0,
    /// On the IO thread that holds the request.
    Inline = 1,
    /// On a pool thread, together with others.
    Batch = 2,
}

impl Place {
    /// The word for people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Place::Pool => "pool",
            Place::Inline => "inline",
            Place::Batch => "batched",
        }
    }
}

/// What a place is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The newest runs; one that was together with others counts for each of them.
    pub runs: &'a Counts,
    /// The share of the IO threads' time that these took, where they ran inline.
    pub busy: f64,
    /// Its batches, where it has them.
    pub batches: Option<Batches>,
}

/// Whether four rows together are cheaper than each alone by a quarter or more, the hop included.
fn pay(batches: &Batches) -> bool {
    batches.cost.is_some_and(|cost| 0.75 * cost.fixed_ns - HOP_NS > 0.25 * cost.of(1))
}

fn are_lonely(batches: &Batches) -> bool {
    batches.rows.is_none_or(|rows| rows < LONELY_ROWS)
}

/// What a place was decided from last, and why it is that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decided {
    /// In words.
    pub why: &'static str,
    /// The runs that were looked at.
    pub runs: u64,
    /// Their 99th percentile, in nanoseconds.
    pub p99_ns: u64,
    /// As [`Seen::busy`].
    pub busy: f64,
    /// The rows of its batches on average, where there were any.
    pub batch_rows: Option<f64>,
}

/// A version's place, readable by every thread, decided by one.
#[derive(Debug, Default)]
pub struct Placement {
    place: AtomicU8,
    /// Where it is to run as long as nothing speaks against it.
    home: Place,
    decided: Mutex<Option<Decided>>,
    /// Why nothing is decided: somebody wrote the place down, or it follows from what was written.
    fixed: Option<&'static str>,
    /// Until when it may not run inline, and until when it is not tried together.
    barred_until_ns: AtomicU64,
    alone_until_ns: AtomicU64,
}

impl Placement {
    /// A version's place at first, as its rule has it.
    pub fn new(rule: PlacementRule) -> Self {
        let place = if rule == PlacementRule::Inline { Place::Inline } else { Place::Pool };
        let fixed = (rule != PlacementRule::Auto).then_some(WRITTEN);
        Self { place: AtomicU8::new(place as u8), home: place, fixed, ..Self::default() }
    }

    /// The pool, for whatever reason there is.
    pub fn in_pool(why: &'static str) -> Self {
        Self { fixed: Some(why), ..Self::new(PlacementRule::Pool) }
    }

    /// Inline, for whatever reason there is.
    pub fn inline(why: &'static str) -> Self {
        Self { fixed: Some(why), ..Self::new(PlacementRule::Inline) }
    }

    /// Whether the place was written down.
    pub fn is_written(&self) -> bool {
        self.fixed == Some(WRITTEN)
    }

    /// Where to run now.
    pub fn get(&self) -> Place {
        if self.place.load(Relaxed) == Place::Inline as u8 { Place::Inline } else { Place::Pool }
    }

    /// Decides from what was seen newest; `now_ns` is any monotonic clock. Too few runs change nothing.
    pub fn decide(&self, seen: Seen<'_>, now_ns: u64) -> Place {
        let Some(p99_ns) = seen.runs.quantile_ns(0.99).filter(|_| seen.runs.total() >= MIN_RUNS) else {
            return self.get();
        };
        let (place, why) = match (self.get(), self.fixed) {
            (_, Some(_)) if self.home == Place::Inline && now_ns < self.barred_until_ns.load(Relaxed) => {
                (Place::Pool, STALLED)
            }
            (_, Some(why)) => (self.home, why),
            (Place::Inline, None) => self.leaves_io(seen, p99_ns, now_ns),
            (_, None) => self.leaves_pool(seen, p99_ns, now_ns),
        };
        self.place.store(place as u8, Relaxed);
        let batch_rows = seen.batches.and_then(|batches| batches.rows);
        let decided = Decided { why, runs: seen.runs.total(), p99_ns, busy: seen.busy, batch_rows };
        *self.last() = Some(decided);
        place
    }

    /// What was decided last; `None` before there were enough runs.
    pub fn decided(&self) -> Option<Decided> {
        *self.last()
    }

    fn last(&self) -> MutexGuard<'_, Option<Decided>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaves_io(&self, seen: Seen<'_>, p99: u64, now_ns: u64) -> (Place, &'static str) {
        let together = seen.batches.as_ref().is_some_and(pay)
            && seen.busy > BUSY
            && now_ns >= self.alone_until_ns.load(Relaxed);
        if p99 > POOL_ABOVE_NS {
            (Place::Pool, "its runs take more than 150 us (p99)")
        } else if together {
            (Place::Pool, "it keeps the IO threads busy, and rows together would be cheaper")
        } else {
            (Place::Inline, "its runs take less than 150 us (p99)")
        }
    }

    fn leaves_pool(&self, seen: Seen<'_>, p99: u64, now_ns: u64) -> (Place, &'static str) {
        // The runs of batches say little about a run alone.
        let cost = seen.batches.and_then(|batches| batches.cost);
        let alone = cost.map_or(p99, |cost| cost.of(1) as u64);
        if now_ns < self.barred_until_ns.load(Relaxed) {
            return (Place::Pool, STALLED);
        }
        if alone > INLINE_BELOW_NS {
            return (Place::Pool, "a run alone takes more than 50 us");
        }
        let Some(batches) = seen.batches.filter(pay) else {
            return (Place::Inline, "a run alone takes less than 50 us");
        };
        if !are_lonely(&batches) {
            return (Place::Pool, "its requests come together, and rows together are cheaper");
        }
        if batches.rows.is_some() {
            self.alone_until_ns.store(now_ns + PENALTY_NS, Relaxed);
        }
        (Place::Inline, "a run alone takes less than 50 us, and its requests come one by one")
    }

    /// Takes a version off the IO threads at once: one of its runs stalled one.
    pub fn demote(&self, now_ns: u64) {
        self.barred_until_ns.store(now_ns + PENALTY_NS, Relaxed);
        self.place.store(Place::Pool as u8, Relaxed);
        if let Some(decided) = &mut *self.last() {
            decided.why = STALLED;
        }
    }

    /// Puts a version back where it was written to run, once it has been off the IO threads for long enough.
    pub fn recover(&self, now_ns: u64) {
        if self.home == Place::Inline
            && self.get() != Place::Inline
            && now_ns >= self.barred_until_ns.load(Relaxed)
        {
            self.place.store(Place::Inline as u8, Relaxed);
        }
    }

    /// Puts a version inline without measuring: it is known to do no work.
    pub fn pin_inline(&self) {
        self.place.store(Place::Inline as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::Cost;
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

    fn seen(runs: &Counts) -> Seen<'_> {
        Seen { runs, busy: 0.0, batches: None }
    }

    #[test]
    fn short_runs_move_inline_and_long_ones_back_with_room_between() {
        let placement = Placement::default();
        let decide = |ns, count| placement.decide(seen(&runs(ns, count)), 0);
        assert_eq!(decide(2_000, MIN_RUNS - 1), Place::Pool);
        assert_eq!(decide(2_000, MIN_RUNS), Place::Inline);
        assert_eq!(decide(100_000, MIN_RUNS), Place::Inline);
        assert_eq!(decide(200_000, MIN_RUNS), Place::Pool);
        let decided = placement.decided().unwrap();
        assert_eq!((decided.runs, decided.why), (MIN_RUNS, "its runs take more than 150 us (p99)"));
        assert!((200_000..=250_000).contains(&decided.p99_ns), "{decided:?}");
        assert_eq!(decide(100_000, MIN_RUNS), Place::Pool);
    }

    #[test]
    fn a_place_that_is_written_down_stays() {
        for (rule, place) in [(PlacementRule::Inline, Place::Inline), (PlacementRule::Pool, Place::Pool)] {
            let placement = Placement::new(rule);
            let ns = if place == Place::Inline { 9_000_000 } else { 2_000 };
            assert_eq!(placement.decide(seen(&runs(ns, 100)), 0), place);
            // Who holds an IO thread up leaves it for a while, whatever is written.
            placement.demote(0);
            assert_eq!(
                (placement.get(), placement.decide(seen(&runs(ns, 100)), 1)),
                (Place::Pool, Place::Pool)
            );
            placement.recover(PENALTY_NS - 1);
            assert_eq!(placement.get(), Place::Pool);
            placement.recover(PENALTY_NS);
            assert_eq!(placement.get(), place);
        }
    }

    #[test]
    fn what_does_no_work_stays_inline_however_long_it_seems_to_take() {
        let placement = Placement::inline("it does no work");
        assert_eq!(placement.decide(seen(&runs(9_000_000, 100)), 0), Place::Inline);
        assert_eq!((placement.decided().unwrap().why, placement.is_written()), ("it does no work", false));
    }

    #[test]
    fn a_stall_bars_for_a_while() {
        let placement = Placement::default();
        let decide = |now| placement.decide(seen(&runs(2_000, 100)), now);
        decide(0);
        placement.demote(1_000);
        assert_eq!(placement.decided().unwrap().why, STALLED);
        assert_eq!(decide(PENALTY_NS), Place::Pool);
        assert_eq!(decide(PENALTY_NS + 1_000), Place::Inline);
    }

    /// Decides for a version that may run together: the cost of a run and of a row, the share of time, the rows of its batches.
    fn together(placement: &Placement, cost: (f64, f64), busy: f64, rows: Option<f64>, now: u64) -> Place {
        let cost = Some(Cost { fixed_ns: cost.0, row_ns: cost.1 });
        let runs = runs(40_000, 100);
        placement.decide(Seen { runs: &runs, busy, batches: Some(Batches { cost, rows }) }, now)
    }

    #[test]
    fn short_runs_that_are_cheaper_together_go_there_while_they_come_together() {
        let placement = Placement::default();
        let decide = |busy, rows, now| together(&placement, (40_000.0, 1_000.0), busy, rows, now);
        assert_eq!(decide(0.1, None, 0), Place::Inline);
        assert_eq!(decide(0.4, None, 1), Place::Inline);
        assert_eq!(decide(0.9, None, 2), Place::Pool);
        assert_eq!(decide(0.9, Some(8.0), 3), Place::Pool);
        // Nobody comes at the same time any more; busy as it is, it is left alone for a while.
        assert_eq!(decide(0.9, Some(1.1), 4), Place::Inline);
        assert_eq!(decide(0.9, None, PENALTY_NS), Place::Inline);
        assert_eq!(decide(0.9, None, PENALTY_NS + 4), Place::Pool);
    }

    #[test]
    fn runs_whose_rows_are_the_cost_or_that_cost_less_than_a_hop_stay_inline() {
        for cost in [(2_000.0, 100.0), (9_000.0, 100.0), (15_000.0, 30_000.0)] {
            let placement = Placement::default();
            for now in 0..3 {
                assert_eq!(together(&placement, cost, 1.0, Some(8.0), now), Place::Inline, "{cost:?}");
            }
        }
    }

    #[test]
    fn runs_that_are_long_alone_are_never_inline() {
        let placement = Placement::default();
        assert_eq!(together(&placement, (60_000.0, 1_000.0), 0.0, Some(1.0), 0), Place::Pool);
    }
}
