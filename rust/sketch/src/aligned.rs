//! A histogram on the edges of a baseline: the count and the sum of the values in each slot. It is linear: histograms can be added
//! and subtracted without loss.
//!
//! Not here: NaN and infinities (they have no slot; `live::NonFiniteCounts`), the per-thread atomic form (`shard`).
//! Next: `exponential`.

use std::ops::RangeInclusive;

use crate::edges;

/// Counts and sums per slot; slots as in [`crate::edges`], one more than there are edges.
#[derive(Clone, Debug, PartialEq)]
pub struct AlignedHistogram {
    /// Values per slot.
    pub counts: Vec<u64>,
    /// The sum of the values per slot.
    pub sums: Vec<f64>,
}

impl AlignedHistogram {
    /// An empty histogram with this many slots.
    pub fn new(slots: usize) -> Self {
        Self { counts: vec![0; slots], sums: vec![0.0; slots] }
    }

    /// The histogram of `values` on `edges`; values that are not finite are left out.
    pub fn of(edges: &[f64], values: &[f64]) -> Self {
        let mut histogram = Self::new(edges.len() + 1);
        for &value in values.iter().filter(|value| value.is_finite()) {
            histogram.record(edges::slot(edges, value), value);
        }
        histogram
    }

    /// Counts a finite value in its slot.
    #[inline]
    pub fn record(&mut self, slot: usize, value: f64) {
        self.counts[slot] += 1;
        self.sums[slot] += value;
    }

    /// The number of finite values.
    pub fn n(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the counts of another histogram on the same edges.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.counts.len(), other.counts.len(), "histograms of different features");
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        for (a, b) in self.sums.iter_mut().zip(&other.sums) {
            *a += b;
        }
    }

    /// Subtracts the counts of a histogram that was merged before. The sum of an empty slot becomes exactly 0, so that rounding errors
    /// do not accumulate.
    pub fn subtract(&mut self, other: &Self) {
        debug_assert_eq!(self.counts.len(), other.counts.len(), "histograms of different features");
        for (i, (count, sum)) in other.counts.iter().zip(&other.sums).enumerate() {
            self.counts[i] = self.counts[i].saturating_sub(*count);
            self.sums[i] = if self.counts[i] == 0 { 0.0 } else { self.sums[i] - sum };
        }
    }

    /// The value below which a share `q` of the values lies, interpolated within its slot. `range` is the smallest and the largest
    /// value. The true quantile lies in the same slot. `None` without values.
    pub fn quantile(&self, edges: &[f64], range: RangeInclusive<f64>, q: f64) -> Option<f64> {
        let n = self.n();
        let rank = (q * n as f64).ceil().clamp(1.0, n.max(1) as f64);
        let mut below = 0.0;
        for (slot, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = count as f64;
            if below + count >= rank {
                let low = if slot == 0 { *range.start() } else { edges[slot - 1].max(*range.start()) };
                let high = if slot == edges.len() { *range.end() } else { edges[slot].min(*range.end()) };
                let share = (rank - below) / count;
                return Some(low + (high - low) * share);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_adds_and_subtract_takes_back() {
        let edges = [0.0, 1.0, 2.0];
        let a = AlignedHistogram::of(&edges, &[-1.0, 0.0, 0.5, 2.0, f64::NAN]);
        let b = AlignedHistogram::of(&edges, &[0.25, 3.0]);
        assert_eq!(a.counts, [2, 1, 1, 0]);
        let mut sum = a.clone();
        sum.merge(&b);
        assert_eq!(sum.n(), 6);
        sum.subtract(&b);
        assert_eq!(sum, a);
    }

    #[test]
    fn quantiles_lie_in_their_slot() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let edges: Vec<f64> = (0..=10).map(|i| f64::from(i) * 10.0).collect();
        let histogram = AlignedHistogram::of(&edges, &values);
        for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
            let found = histogram.quantile(&edges, 1.0..=100.0, q).unwrap();
            let exact = edges::quantile(&values, q);
            assert!((found - exact).abs() <= 10.0 && (1.0..=100.0).contains(&found), "{q}: {found}");
        }
        assert_eq!(AlignedHistogram::new(3).quantile(&[0.0, 1.0], 0.0..=0.0, 0.5), None);
    }
}
