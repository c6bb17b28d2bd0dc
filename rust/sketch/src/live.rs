//! What was counted live, merged over threads and time: plain numbers, linear, comparable with the baseline.
//!
//! Not here: time (`window`) and distances (`report`). Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::ExponentialHistogram;
use crate::moments::Moments;
use crate::plan::FeaturePlan;

/// Values that have no place on the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Not a number.
    pub nan: u64,
    /// +infinity.
    pub positive_infinity: u64,
    /// -infinity.
    pub negative_infinity: u64,
}

impl Special {
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

/// The finite values of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Bins {
    /// On the baseline's edges.
    Aligned(AlignedHistogram),
    /// Without a baseline.
    Exponential(ExponentialHistogram),
}

/// One feature.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveFeature {
    /// NaN and infinities.
    pub special: Special,
    /// Moments of the finite values.
    pub moments: Moments,
    /// Their histogram.
    pub bins: Bins,
}

impl LiveFeature {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.moments.n == 0 && self.special.total() == 0
    }

    /// Adds what another one of the same feature and plan saw.
    pub fn merge(&mut self, other: &Self) {
        self.special.merge(&other.special);
        self.moments.merge(&other.moments);
        match (&mut self.bins, &other.bins) {
            (Bins::Aligned(a), Bins::Aligned(b)) => a.merge(b),
            (Bins::Exponential(a), Bins::Exponential(b)) => a.merge(b),
            _ => debug_assert!(false, "live features of different plans"),
        }
    }
}

/// Per tensor: what never became a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveTensor {
    /// Rows without the tensor.
    pub missing: u64,
    /// Tensors of another type or size than the signature's.
    pub wrong_type: u64,
}

/// Everything counted of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Rows that came by.
    pub offered: u64,
    /// Rows that the sampler kept.
    pub observed: u64,
    /// Tensors in the plan's order.
    pub tensors: Vec<LiveTensor>,
    /// Features in the plan's order.
    pub features: Vec<LiveFeature>,
}

impl Live {
    /// Nothing counted yet.
    pub fn new(plan: &FeaturePlan) -> Self {
        let feature = |feature| {
            let bins = match plan.reference(feature) {
                Some(reference) => Bins::Aligned(AlignedHistogram::new(reference.counts.len())),
                None => Bins::Exponential(ExponentialHistogram::default()),
            };
            LiveFeature { special: Special::default(), moments: Moments::default(), bins }
        };
        Self {
            offered: 0,
            observed: 0,
            tensors: vec![LiveTensor::default(); plan.tensors.len()],
            features: plan.features().iter().map(feature).collect(),
        }
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
            a.missing += b.missing;
            a.wrong_type += b.wrong_type;
        }
        for (a, b) in self.features.iter_mut().zip(&other.features).filter(|(_, b)| !b.is_empty()) {
            a.merge(b);
        }
    }
}
