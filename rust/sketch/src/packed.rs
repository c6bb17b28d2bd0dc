//! A closed sub-window in little memory: only features with values, and only their filled slots if few are filled.
//!
//! Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::{ExponentialHistogram, HALVINGS};
use crate::live::{LiveCounts, LiveFeature, LiveTensor, NonFiniteCounts};
use crate::moments::Moments;

#[derive(Debug)]
enum PackedAligned {
    Dense(AlignedHistogram),
    Sparse {
        filled: Box<[FilledSlot]>,
        /// The number of all slots.
        slots: u16,
    },
}

#[derive(Debug)]
struct FilledSlot {
    slot: u16,
    count: u64,
    sum: f64,
}

#[derive(Debug)]
struct PackedFeature {
    at: u32,
    non_finite: NonFiniteCounts,
    moments: Moments,
    aligned: Option<PackedAligned>,
    exponential: ExponentialHistogram,
}

/// The rows of a sub-window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowCounts {
    /// All rows, sampled or not.
    pub(crate) offered: u64,
    /// Rows that were sampled.
    pub(crate) observed: u64,
}

/// The counts of a sub-window.
#[derive(Debug)]
pub(crate) struct PackedCounts {
    rows: RowCounts,
    tensors: Box<[LiveTensor]>,
    features: Box<[PackedFeature]>,
    bytes: usize,
}

impl PackedCounts {
    pub(crate) fn new(live: &LiveCounts) -> Self {
        let filled = live.features.iter().enumerate().filter(|(_, feature)| !feature.is_empty());
        let features = filled.map(|(at, feature)| pack(at, feature)).collect();
        let rows = RowCounts { offered: live.offered, observed: live.observed };
        Self::of(rows, live.tensors.clone().into(), features)
    }

    fn of(rows: RowCounts, tensors: Box<[LiveTensor]>, features: Box<[PackedFeature]>) -> Self {
        let heap: usize = features.iter().map(PackedFeature::heap_bytes).sum();
        let bytes = size_of::<Self>() + size_of_val(&*tensors) + size_of_val(&*features) + heap;
        Self { rows, tensors, features, bytes }
    }

    /// The sum with the counts of another sub-window of the same plan.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let mut tensors = self.tensors.clone();
        tensors.iter_mut().zip(&other.tensors).for_each(|(into, tensor)| into.merge(tensor));
        let numbers = |packed: &Self| packed.features.iter().map(|feature| feature.at).collect::<Vec<_>>();
        let mut all = [numbers(self), numbers(other)].concat();
        all.sort_unstable();
        all.dedup();
        let features = all.into_iter().filter_map(|at| {
            let mut feature = self.feature(at as usize).or_else(|| other.feature(at as usize))?.unpack();
            if let (Some(_), Some(other)) = (self.feature(at as usize), other.feature(at as usize)) {
                feature.merge(&other.unpack());
            }
            Some(pack(at as usize, &feature))
        });
        let rows = RowCounts {
            offered: self.rows.offered + other.rows.offered,
            observed: self.rows.observed + other.rows.observed,
        };
        Self::of(rows, tensors, features.collect())
    }

    /// The same counts with coarser exponential histograms, so that they take less memory. `None` if all are at the coarsest scale.
    pub(crate) fn coarser(&self) -> Option<Self> {
        (1..=HALVINGS).map(|steps| self.downscaled(steps)).find(|coarser| coarser.bytes < self.bytes)
    }

    fn downscaled(&self, steps: u8) -> Self {
        let features = self.features.iter().map(|feature| {
            let mut feature = pack(feature.at as usize, &feature.unpack());
            feature.exponential.downscale(steps);
            feature
        });
        Self::of(self.rows, self.tensors.clone(), features.collect())
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn feature(&self, at: usize) -> Option<&PackedFeature> {
        let found = self.features.binary_search_by_key(&(at as u32), |feature| feature.at).ok()?;
        Some(&self.features[found])
    }

    /// Adds one feature to `live`.
    pub(crate) fn add_feature(&self, at: usize, live: &mut LiveFeature) {
        if let Some(feature) = self.feature(at) {
            live.merge(&feature.unpack());
        }
    }

    /// The rows of the sub-window.
    pub(crate) fn rows(&self) -> RowCounts {
        self.rows
    }

    /// Tensors in the plan's order.
    pub(crate) fn tensors(&self) -> &[LiveTensor] {
        &self.tensors
    }
}

fn pack(at: usize, feature: &LiveFeature) -> PackedFeature {
    PackedFeature {
        at: at as u32,
        non_finite: feature.non_finite,
        moments: feature.moments,
        aligned: feature.aligned.as_ref().map(PackedAligned::new),
        exponential: feature.exponential.clone(),
    }
}

impl PackedFeature {
    fn heap_bytes(&self) -> usize {
        self.exponential.heap_bytes() + self.aligned.as_ref().map_or(0, PackedAligned::bytes)
    }

    fn unpack(&self) -> LiveFeature {
        LiveFeature {
            non_finite: self.non_finite,
            moments: self.moments,
            aligned: self.aligned.as_ref().map(PackedAligned::unpack),
            exponential: self.exponential.clone(),
        }
    }
}

impl PackedAligned {
    fn new(histogram: &AlignedHistogram) -> Self {
        let filled = histogram.counts.iter().filter(|&&count| count > 0).count();
        if filled * size_of::<FilledSlot>() >= histogram.counts.len() * size_of::<(u64, f64)>() {
            return Self::Dense(histogram.clone());
        }
        let slots = histogram.counts.iter().zip(&histogram.sums).enumerate();
        let filled = slots.filter(|(_, (count, _))| **count > 0);
        let filled = filled.map(|(slot, (&count, &sum))| FilledSlot { slot: slot as u16, count, sum });
        Self::Sparse { filled: filled.collect(), slots: histogram.counts.len() as u16 }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(histogram) => histogram.counts.len() * size_of::<(u64, f64)>(),
            Self::Sparse { filled, .. } => size_of_val(&**filled),
        }
    }

    fn unpack(&self) -> AlignedHistogram {
        match self {
            Self::Dense(histogram) => histogram.clone(),
            Self::Sparse { filled, slots } => {
                let mut histogram = AlignedHistogram::new(usize::from(*slots));
                for &FilledSlot { slot, count, sum } in filled {
                    histogram.counts[usize::from(slot)] = count;
                    histogram.sums[usize::from(slot)] = sum;
                }
                histogram
            }
        }
    }
}
