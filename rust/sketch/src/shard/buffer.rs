//! One of the two buffers of a shard: flat counters, which the writer increments with plain loads and stores. The collector empties
//! the buffer while the writer uses the other one.
//!
//! Not here: which side owns the buffer (`flip`). Next: `record`.

use std::hash::{BuildHasher, RandomState};

use super::counter::{CounterPair, load_f64, store_f64, take};
use super::table::BucketTable;
use crate::live::{LiveCounts, LiveTensor};
use crate::moments::{Moments, PowerSums};
use crate::plan::{FeatureLayout, FeatureLayouts, FeaturePlan, HEADER_CELLS};
use crate::sampler::splitmix64;
use crate::sync::AtomicU64;

/// The header of a feature: the counters in its first cells.
pub(crate) mod header {
    /// a: sum of squares about the centre; b: the centre, if there is no baseline.
    pub(crate) const SQUARES: usize = 0;
    /// a: smallest value; b: largest value.
    pub(crate) const RANGE: usize = 1;
    /// a: NaN; b: +infinity.
    pub(crate) const NAN: usize = 2;
    /// a: -infinity; b: finite values whose bucket the memory budget refused.
    pub(crate) const NEGATIVE: usize = 3;
    /// a: values in the exponential histogram's zero bucket; b: sum of all values, if there are no slots.
    pub(crate) const ZERO: usize = 4;
}

/// All counters of one buffer.
#[derive(Debug)]
pub(crate) struct CounterBuffer {
    pub(crate) cells: Box<[CounterPair]>,
    /// One for each feature.
    pub(crate) exponentials: Box<[BucketTable]>,
    pub(crate) offered: AtomicU64,
    pub(crate) observed: AtomicU64,
    pub(crate) tensors: Box<[TensorCounters]>,
}

/// The counters of a tensor, as in [`LiveTensor`].
#[derive(Debug)]
pub(crate) struct TensorCounters {
    pub(crate) missing: AtomicU64,
    pub(crate) wrong_type: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) weight: AtomicU64,
    /// The bits of an `f64`.
    pub(crate) squares: AtomicU64,
}

impl TensorCounters {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { missing: zero(), wrong_type: zero(), rows: zero(), weight: zero(), squares: zero() }
    }

    fn drain(&self) -> LiveTensor {
        LiveTensor {
            missing: take(&self.missing),
            wrong_type: take(&self.wrong_type),
            rows: take(&self.rows),
            weight: take(&self.weight),
            squares: f64::from_bits(take(&self.squares)),
        }
    }
}

impl FeaturePlan {
    /// Bytes of one shard, which has two buffers, before any exponential bucket is used.
    pub fn shard_bytes(&self) -> usize {
        2 * (self.cells * size_of::<CounterPair>()
            + self.features.len() * size_of::<BucketTable>()
            + self.tensors.len() * size_of::<TensorCounters>()
            + size_of::<CounterBuffer>())
    }
}

impl CounterBuffer {
    pub(crate) fn new(plan: &FeaturePlan) -> Self {
        let random = RandomState::new().hash_one(plan.cells);
        let tables =
            (0..plan.features.len() as u64).map(|number| BucketTable::new(splitmix64(random ^ number)));
        let buffer = Self {
            cells: (0..plan.cells)
                .map(|_| CounterPair { a: AtomicU64::new(0), b: AtomicU64::new(0) })
                .collect(),
            exponentials: tables.collect(),
            offered: AtomicU64::new(0),
            observed: AtomicU64::new(0),
            tensors: plan.tensors.iter().map(|_| TensorCounters::new()).collect(),
        };
        for tensor in &plan.tensors {
            match &tensor.layouts {
                FeatureLayouts::Single(layouts) => {
                    layouts.iter().for_each(|layout| buffer.reset_range(layout.cell))
                }
                FeatureLayouts::Double(layouts) => {
                    layouts.iter().for_each(|layout| buffer.reset_range(layout.cell))
                }
            }
        }
        buffer
    }

    fn reset_range(&self, first: usize) {
        let range = &self.cells[first + header::RANGE];
        store_f64(&range.a, f64::INFINITY);
        store_f64(&range.b, f64::NEG_INFINITY);
    }

    /// Moves all counts to `live` and leaves zeros. The collector must own the buffer.
    pub(crate) fn drain(&self, plan: &FeaturePlan, live: &mut LiveCounts) {
        live.offered += take(&self.offered);
        live.observed += take(&self.observed);
        for (number, tensor) in plan.tensors.iter().enumerate() {
            live.tensors[number].merge(&self.tensors[number].drain());
            match &tensor.layouts {
                FeatureLayouts::Single(layouts) => {
                    layouts.iter().for_each(|layout| self.drain_feature(layout, live))
                }
                FeatureLayouts::Double(layouts) => {
                    layouts.iter().for_each(|layout| self.drain_feature(layout, live))
                }
            }
        }
    }

    fn drain_feature<L>(&self, layout: &FeatureLayout<L>, live: &mut LiveCounts) {
        let live = &mut live.features[layout.feature];
        let cells = &self.cells[layout.cell..layout.cell + layout.cells];
        live.non_finite.nan += take(&cells[header::NAN].a);
        live.non_finite.positive_infinity += take(&cells[header::NAN].b);
        live.non_finite.negative_infinity += take(&cells[header::NEGATIVE].a);
        let (min, max) = (load_f64(&cells[header::RANGE].a), load_f64(&cells[header::RANGE].b));
        if min > max {
            return;
        }
        self.reset_range(layout.cell);
        let squares = f64::from_bits(take(&cells[header::SQUARES].a));
        let own_centre = f64::from_bits(take(&cells[header::SQUARES].b));
        let before = live.exponential.n();
        live.exponential.zero += take(&cells[header::ZERO].a);
        self.exponentials[layout.feature].drain(&mut live.exponential);
        let mut n = live.exponential.n() - before + take(&cells[header::NEGATIVE].b);
        let mut sum = f64::from_bits(take(&cells[header::ZERO].b));
        let mut centre = own_centre;
        if let Some(histogram) = &mut live.aligned {
            (n, sum, centre) = (0, 0.0, layout.centre);
            for (slot, cell) in cells[HEADER_CELLS..].iter().enumerate() {
                let (count, part) = (take(&cell.a), f64::from_bits(take(&cell.b)));
                histogram.counts[slot] += count;
                histogram.sums[slot] += part;
                n += count;
                sum += part;
            }
        }
        live.moments.merge(&Moments::from_power_sums(PowerSums { n, sum, squares, centre, min, max }));
    }
}
