//! Where a version runs: on the IO thread that holds the request, or on a pool thread.
//!
//! A hop to another thread costs 4 to 6 microseconds, 60 when that core sleeps; a run that is shorter goes nowhere. A version
//! starts in the pool, moves inline when its runs are measured to be short, and moves back when they are not; the two
//! thresholds lie apart so that it does not flutter. Whoever stalls an IO thread once stays in the pool for a while.
//!
//! Not here: the measuring (`histogram`) and the runs (`model`, `pool`). Next: `model`.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use headgate_core::spec::PlaceRule;

use crate::histogram::Counts;

/// Runs with a 99th percentile below this move inline, in nanoseconds.
pub const INLINE_BELOW_NS: u64 = 50_000;
/// Runs with a 99th percentile above this move to the pool, in nanoseconds.
pub const POOL_ABOVE_NS: u64 = 150_000;
/// An inline run that lasts this long stalls its IO thread, in nanoseconds.
pub const STALL_NS: u64 = 10_000_000;
/// How long a version stays in the pool after a stall, in nanoseconds.
pub const PENALTY_NS: u64 = 60_000_000_000;
/// The fewest runs that say anything.
pub const MIN_RUNS: u64 = 20;

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// On a pool thread.
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

/// A version's place, readable by every thread, decided by one.
#[derive(Debug, Default)]
pub struct Placement {
    place: AtomicU8,
    /// Whether somebody wrote the place down: then nothing is decided.
    fixed: bool,
    barred_until_ns: AtomicU64,
}

impl Placement {
    /// A version's place at first, as its rule has it.
    pub fn new(rule: PlaceRule) -> Self {
        let place = if rule == PlaceRule::Inline { Place::Inline } else { Place::Pool };
        Self { place: AtomicU8::new(place as u8), fixed: rule != PlaceRule::Auto, ..Self::default() }
    }

    /// Whether the place was written down.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// Where to run now.
    pub fn get(&self) -> Place {
        if self.place.load(Relaxed) == Place::Inline as u8 { Place::Inline } else { Place::Pool }
    }

    /// Decides from the newest run times; `now_ns` is any monotonic clock. Too few runs change nothing.
    pub fn decide(&self, runs: &Counts, now_ns: u64) -> Place {
        let decided = match (self.get(), runs.quantile_ns(0.99)) {
            (place, _) if self.fixed || runs.total() < MIN_RUNS => place,
            (place, None) => place,
            (Place::Pool, Some(p99))
                if p99 <= INLINE_BELOW_NS && now_ns >= self.barred_until_ns.load(Relaxed) =>
            {
                Place::Inline
            }
            (Place::Inline, Some(p99)) if p99 > POOL_ABOVE_NS => Place::Pool,
            (place, Some(_)) => place,
        };
        self.place.store(decided as u8, Relaxed);
        decided
    }

    /// Takes a version off the IO threads at once: one of its runs stalled one.
    pub fn demote(&self, now_ns: u64) {
        if self.fixed {
            return;
        }
        self.barred_until_ns.store(now_ns + PENALTY_NS, Relaxed);
        self.place.store(Place::Pool as u8, Relaxed);
    }

    /// Puts a version inline without measuring: it is known to do no work.
    pub fn pin_inline(&self) {
        self.place.store(Place::Inline as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;

    fn runs(ns: u64, count: u64) -> Counts {
        let histogram = Histogram::default();
        for _ in 0..count {
            histogram.record(ns);
        }
        let mut counts = Counts::default();
        histogram.add_to(&mut counts);
        counts
    }

    #[test]
    fn short_runs_move_inline_and_long_ones_back_with_room_between() {
        let placement = Placement::default();
        assert_eq!(placement.decide(&runs(2_000, MIN_RUNS - 1), 0), Place::Pool);
        assert_eq!(placement.decide(&runs(2_000, MIN_RUNS), 0), Place::Inline);
        assert_eq!(placement.decide(&runs(100_000, MIN_RUNS), 0), Place::Inline);
        assert_eq!(placement.decide(&runs(200_000, MIN_RUNS), 0), Place::Pool);
        assert_eq!(placement.decide(&runs(100_000, MIN_RUNS), 0), Place::Pool);
    }

    #[test]
    fn a_place_that_is_written_down_stays() {
        for (rule, place) in [(PlaceRule::Inline, Place::Inline), (PlaceRule::Pool, Place::Pool)] {
            let placement = Placement::new(rule);
            placement.decide(&runs(if place == Place::Inline { 9_000_000 } else { 2_000 }, 100), 0);
            placement.demote(0);
            assert_eq!(placement.get(), place);
        }
    }

    #[test]
    fn a_stall_bars_for_a_while() {
        let placement = Placement::default();
        placement.decide(&runs(2_000, 100), 0);
        placement.demote(1_000);
        assert_eq!(placement.decide(&runs(2_000, 100), PENALTY_NS), Place::Pool);
        assert_eq!(placement.decide(&runs(2_000, 100), PENALTY_NS + 1_000), Place::Inline);
    }
}
