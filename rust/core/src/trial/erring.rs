//! The units that most errors come from: a bounded sketch of them.
//!
//! An IO thread writes the unit of each error to a ring, and the collector counts them by the algorithm of Misra and Gries (1982): of
//! `n` errors, a unit's count is at most `n / 65` too low, and never too high. Units are numbers; no key is kept.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use serde::{Deserialize, Serialize};

/// The units of errors of an arm and thread that wait for the reader.
const CAPACITY: usize = 256;
/// The units that are counted.
const COUNTED: usize = 64;

/// The units of errors on their way: one writer, one reader. What finds it full is left out, so that it is a sample then.
#[derive(Default)]
pub struct UnitRing {
    units: OnceLock<Box<[AtomicU32; CAPACITY]>>,
    written: AtomicU64,
    read: AtomicU64,
}

impl UnitRing {
    /// Writes the unit of an error. Only one thread may call this.
    pub fn push(&self, unit: u32) {
        let units = self.units.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(0))));
        let written = self.written.load(Relaxed);
        if written - self.read.load(Acquire) < CAPACITY as u64 {
            units[(written % CAPACITY as u64) as usize].store(unit, Relaxed);
            // The reader sees the unit before it sees the number.
            self.written.store(written + 1, Release);
        }
    }

    /// Takes the units that were written since the last call. Only one thread at a time may call this.
    pub fn drain(&self, take: impl FnMut(u32)) {
        let Some(units) = self.units.get() else { return };
        let written = self.written.load(Acquire);
        let numbers = self.read.load(Relaxed)..written;
        numbers.map(|number| units[(number % CAPACITY as u64) as usize].load(Relaxed)).for_each(take);
        self.read.store(written, Release);
    }
}

/// The units that most errors of an arm come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErringUnits {
    counts: BTreeMap<u32, u64>,
    seen: u64,
}

/// How much of the errors comes from three units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErringShare {
    /// Errors whose units were looked at.
    pub seen: u64,
    /// Of these, errors of the three units that have the most: at least so many.
    pub of_three: u64,
}

impl ErringUnits {
    /// Counts an error of a unit.
    pub fn add(&mut self, unit: u32) {
        self.seen += 1;
        if self.counts.len() < COUNTED || self.counts.contains_key(&unit) {
            *self.counts.entry(unit).or_insert(0) += 1;
            return;
        }
        self.counts.retain(|_, count| {
            *count -= 1;
            *count > 0
        });
    }

    /// How much of the errors comes from three units.
    pub fn share(&self) -> ErringShare {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        ErringShare { seen: self.seen, of_three: counts.iter().take(3).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_ring_leaves_out_what_comes() {
        let ring = UnitRing::default();
        (0..300).for_each(|unit| ring.push(unit));
        let mut units = Vec::new();
        ring.drain(|unit| units.push(unit));
        assert_eq!(units, (0..256).collect::<Vec<_>>());
        ring.push(7);
        ring.drain(|unit| units.push(unit));
        assert_eq!(units.last(), Some(&7));
    }

    proptest! {
        #[test]
        fn the_part_of_three_units_is_never_too_high_and_little_too_low(
            units in proptest::collection::vec(prop_oneof![0u32..3, 0u32..1_000], 0..2_000),
        ) {
            let mut erring = ErringUnits::default();
            let mut exact: BTreeMap<u32, u64> = BTreeMap::new();
            for &unit in &units {
                erring.add(unit);
                *exact.entry(unit).or_insert(0) += 1;
            }
            let mut counts: Vec<u64> = exact.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let of_three: u64 = counts.iter().take(3).sum();
            let share = erring.share();
            prop_assert_eq!(share.seen, units.len() as u64);
            prop_assert!(share.of_three <= of_three);
            prop_assert!(share.of_three + 3 * (share.seen / 65 + 1) >= of_three);
        }
    }
}
