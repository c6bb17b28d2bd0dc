//! What was counted live, merged over threads and time: plain numbers, linear, comparable with the baseline.
//!
//! Not here: time (`window`) and distances (`report`). Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::{ExponentialHistogram, FEWEST, HALVINGS};
use crate::moments::Moments;
use crate::plan::{FeaturePlan, HEADER_CELLS};

/// Values that have no place on the line.
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

    /// All of them.
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
    /// Their histogram on the baseline's edges, where there is one: what drift is judged by.
    pub aligned: Option<AlignedHistogram>,
    /// Their histogram on edges that are the same for every feature and version. Lacks values (its total is less than the
    /// moments') that came when the memory budget held no bucket at all.
    pub exponential: ExponentialHistogram,
}

impl LiveFeature {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.moments.n == 0 && self.non_finite.total() == 0
    }

    /// Adds what another one of the same feature and plan saw.
    pub fn merge(&mut self, other: &Self) {
        self.non_finite.merge(&other.non_finite);
        self.moments.merge(&other.moments);
        self.exponential.merge(&other.exponential);
        debug_assert_eq!(self.aligned.is_some(), other.aligned.is_some(), "live features of different plans");
        if let (Some(into), Some(from)) = (&mut self.aligned, &other.aligned) {
            into.merge(from);
        }
    }

    /// The value below which a share `q` of the values lies; `edges` are the baseline's. `None` without values.
    ///
    /// The true quantile lies in one slot and in one exponential bucket at once: the slot is the narrower one in the body of
    /// a narrow feature far from 0, the bucket wherever values left the reference's range. Error: at most the narrower one.
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

/// Per tensor: what never became a value, and how the rows count that were sketched.
///
/// All counts of values are weighted: a row that stands for eight counts eight times. So shares, means and quantiles are
/// those of all rows that came by. What a test may conclude from them follows from [`LiveTensor::effective`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveTensor {
    /// Rows without the tensor.
    pub missing: u64,
    /// Tensors of another type or size than the signature's.
    pub wrong_type: u64,
    /// Rows that were sketched.
    pub rows: u64,
    /// The sum of their weights: about the rows that came by.
    pub weight: u64,
    /// The sum of the squares of their weights.
    pub squares: f64,
}

impl LiveTensor {
    /// Adds what another one of the same tensor saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.missing += other.missing;
        self.wrong_type += other.wrong_type;
        self.rows += other.rows;
        self.weight += other.weight;
        self.squares += other.squares;
    }

    /// How many rows of weight 1 would say as much (Kish 1965): `(sum w)^2 / sum w^2`.
    pub fn effective(&self) -> f64 {
        self.weight as f64 * self.effective_share()
    }

    /// What a weighted count is multiplied with to be one of effective rows.
    pub fn effective_share(&self) -> f64 {
        if self.squares > 0.0 { self.weight as f64 / self.squares } else { 1.0 }
    }
}

/// Everything counted of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveCounts {
    /// Rows that came by.
    pub offered: u64,
    /// Rows that the sampler kept.
    pub observed: u64,
    /// Tensors in the plan's order.
    pub tensors: Vec<LiveTensor>,
    /// Features in the plan's order.
    pub features: Vec<LiveFeature>,
}

impl LiveFeature {
    /// Nothing counted yet of a feature with so many slots on its baseline's edges.
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
    /// Bytes of the sum of all shards at the least: with the fewest exponential buckets.
    pub fn live_bytes(&self) -> usize {
        let slots = self.cells - HEADER_CELLS * self.features.len();
        size_of::<LiveCounts>()
            + self.tensors.len() * size_of::<LiveTensor>()
            + self.features.len() * (size_of::<LiveFeature>() + FEWEST * size_of::<u64>())
            + slots * size_of::<(u64, f64)>()
    }
}

impl LiveCounts {
    /// Nothing counted yet.
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

    /// Halves the resolution of every exponential histogram until that takes less memory: buckets may lie so far apart that the
    /// first steps join none. False when all are at the coarsest.
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

    /// Adds what another one of the same plan saw.
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
        // Somebody changed the unit: every value has left the reference's range, where slots say nothing.
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
