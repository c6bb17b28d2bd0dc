//! The live counts of a version, merged over threads and time. They are linear, and comparable with the baseline.
//!
//! Not here: time (`window`) and distances (`report`). Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::{ExponentialHistogram, FEWEST, HALVINGS};
use crate::moments::Moments;
use crate::plan::{FeaturePlan, HEADER_CELLS};

/// Counts of values that are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFiniteCounts {
    /// Not a number.
    pub nan: u64,
    /// +infinity.
    pub positive_infinity: u64,
    /// -infinity.
    pub negative_infinity: u64,
}

impl NonFiniteCounts {
    fn merge(&mut self, other: &Self) {
        self.nan += other.nan;
        self.positive_infinity += other.positive_infinity;
        self.negative_infinity += other.negative_infinity;
    }

    /// The sum of the counts.
    pub fn total(&self) -> u64 {
        self.nan + self.positive_infinity + self.negative_infinity
    }
}

/// One feature.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveFeature {
    /// NaN and infinities.
    pub non_finite: NonFiniteCounts,
    /// Moments of the finite values.
    pub moments: Moments,
    /// Their histogram on the baseline's edges, if there is a baseline. Drift is tested on it.
    pub aligned: Option<AlignedHistogram>,
    /// Their histogram on edges that are the same for every feature and version. Its total is less than that of the moments if the
    /// memory budget had no room for the first buckets.
    pub exponential: ExponentialHistogram,
}

impl LiveFeature {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.moments.n == 0 && self.non_finite.total() == 0
    }

    /// Adds the counts of the same feature of the same plan.
    pub fn merge(&mut self, other: &Self) {
        self.non_finite.merge(&other.non_finite);
        self.moments.merge(&other.moments);
        self.exponential.merge(&other.exponential);
        debug_assert_eq!(self.aligned.is_some(), other.aligned.is_some(), "live features of different plans");
        if let (Some(into), Some(from)) = (&mut self.aligned, &other.aligned) {
            into.merge(from);
        }
    }

    /// The value below which a share `q` of the values lies. `edges` are the baseline's. `None` without values.
    ///
    /// The true quantile lies in a slot and in an exponential bucket. The slot is the narrower one for a narrow feature far from 0,
    /// the bucket for values outside the reference's range. The error is at most the width of the narrower one.
    pub fn quantile(&self, edges: &[f64], q: f64) -> Option<f64> {
        let (min, max) = (self.moments.min, self.moments.max);
        let complete = self.exponential.n() == self.moments.n;
        let Some(aligned) = &self.aligned else {
            return self.exponential.quantile(q).map(|value| value.clamp(min, max));
        };
        let within_slot = aligned.quantile(edges, min..=max, q)?;
        match self.exponential.bucket_of(q).filter(|_| complete) {
            Some((low, high)) => Some(within_slot.clamp(low, high)),
            None => Some(within_slot),
        }
    }
}

/// Counts of a tensor: of those that could not be sketched, and of the sampled rows with their weights.
///
/// All counts of values are weighted: a row that was sampled from eight counts eight times. So shares, means and quantiles are
/// those of all rows. Tests need the number of effective rows, [`LiveTensor::effective`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveTensor {
    /// Rows without the tensor.
    pub missing: u64,
    /// Tensors of another type or size than the signature's.
    pub wrong_type: u64,
    /// Rows that were sketched.
    pub rows: u64,
    /// The sum of their weights: about the number of all rows.
    pub weight: u64,
    /// The sum of the squares of their weights.
    pub squares: f64,
}

impl LiveTensor {
    /// Adds the counts of the same tensor.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.missing += other.missing;
        self.wrong_type += other.wrong_type;
        self.rows += other.rows;
        self.weight += other.weight;
        self.squares += other.squares;
    }

    /// The number of effective rows: of rows of weight 1 with the same variance (Kish 1965), `(sum w)^2 / sum w^2`.
    pub fn effective(&self) -> f64 {
        self.weight as f64 * self.effective_share()
    }

    /// The factor from a weighted count to a count of effective rows.
    pub fn effective_share(&self) -> f64 {
        if self.squares > 0.0 { self.weight as f64 / self.squares } else { 1.0 }
    }
}

/// All counts of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveCounts {
    /// All rows, sampled or not.
    pub offered: u64,
    /// Rows that were sampled.
    pub observed: u64,
    /// Tensors in the plan's order.
    pub tensors: Vec<LiveTensor>,
    /// Features in the plan's order.
    pub features: Vec<LiveFeature>,
}

impl LiveFeature {
    /// No counts yet, for a feature with this number of slots on its baseline's edges.
    pub(crate) fn new(slots: Option<usize>) -> Self {
        Self {
            non_finite: NonFiniteCounts::default(),
            moments: Moments::default(),
            aligned: slots.map(AlignedHistogram::new),
            exponential: ExponentialHistogram::default(),
        }
    }
}

impl FeaturePlan {
    /// The least bytes of the sum of all shards: with the fewest exponential buckets.
    pub fn live_bytes(&self) -> usize {
        let slots = self.cells - HEADER_CELLS * self.features.len();
        size_of::<LiveCounts>()
            + self.tensors.len() * size_of::<LiveTensor>()
            + self.features.len() * (size_of::<LiveFeature>() + FEWEST * size_of::<u64>())
            + slots * size_of::<(u64, f64)>()
    }
}

impl LiveCounts {
    /// No counts yet.
    pub fn new(plan: &FeaturePlan) -> Self {
        let feature =
            |feature| LiveFeature::new(plan.reference(feature).map(|reference| reference.counts.len()));
        Self {
            offered: 0,
            observed: 0,
            tensors: vec![LiveTensor::default(); plan.tensors.len()],
            features: plan.features().iter().map(feature).collect(),
        }
    }

    /// Bytes of the exponential buckets: the only part whose size depends on the values.
    pub fn bucket_bytes(&self) -> usize {
        self.features.iter().map(|feature| feature.exponential.heap_bytes()).sum()
    }

    /// Halves the resolution of every exponential histogram until they take less memory. The first steps may join no buckets, if the
    /// buckets are far apart. Returns false if all are at the coarsest scale.
    pub(crate) fn coarsen(&mut self) -> bool {
        let before = self.bucket_bytes();
        (0..HALVINGS).any(|_| {
            self.features.iter_mut().for_each(|feature| feature.exponential.downscale(1));
            self.bucket_bytes() < before
        })
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.offered == 0
            && self.tensors.iter().all(|tensor| *tensor == LiveTensor::default())
            && self.features.iter().all(LiveFeature::is_empty)
    }

    /// Adds the counts of the same plan.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.features.len(), other.features.len(), "live sets of different plans");
        self.offered += other.offered;
        self.observed += other.observed;
        for (a, b) in self.tensors.iter_mut().zip(&other.tensors) {
            a.merge(b);
        }
        for (a, b) in self.features.iter_mut().zip(&other.features).filter(|(_, b)| !b.is_empty()) {
            a.merge(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges;

    fn feature(edges: &[f64], values: &[f64]) -> LiveFeature {
        let mut exponential = ExponentialHistogram::default();
        let mut moments = Moments::default();
        for &value in values {
            exponential.record(value);
            moments.record(value);
        }
        LiveFeature {
            non_finite: NonFiniteCounts::default(),
            moments,
            aligned: Some(AlignedHistogram::of(edges, values)),
            exponential,
        }
    }

    #[test]
    fn a_quantile_is_as_good_as_the_better_of_both_histograms() {
        let edges: Vec<f64> = (0..=40).map(|i| 1000.0 + f64::from(i) * 0.1).collect();
        let inside: Vec<f64> = (0..500).map(|i| 1000.0 + f64::from(i) * 0.008).collect();
        // As after a change of the unit: all values are outside the reference's range, where slots have no bounds.
        let outside: Vec<f64> = inside.iter().map(|value| value.powi(2)).collect();
        let mixed: Vec<f64> = [&inside[..], &outside[..]].concat();
        for (values, error) in [(&inside, 1e-4), (&outside, 0.022), (&mixed, 0.022)] {
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let live = feature(&edges, values);
            for q in [0.0, 0.05, 0.4, 0.6, 0.95, 1.0] {
                let (found, exact) = (live.quantile(&edges, q).unwrap(), edges::quantile(&sorted, q));
                assert!((found / exact - 1.0).abs() <= error, "{q}: {found} for {exact}");
            }
        }
    }

    #[test]
    fn a_quantile_does_not_rest_on_buckets_that_the_budget_refused() {
        let edges = [0.0, 1.0, 2.0];
        let mut live = feature(&edges, &[0.25, 0.5, 1.5]);
        live.exponential = ExponentialHistogram::default();
        live.exponential.record(0.25);
        assert!((1.0..=2.0).contains(&live.quantile(&edges, 1.0).unwrap()));
    }
}
