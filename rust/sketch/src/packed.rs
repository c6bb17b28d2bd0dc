//! A closed sub-window in little memory: only features with values, and only their filled slots where few are filled.
//!
//! Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::ExponentialHistogram;
use crate::live::{Live, LiveFeature, LiveTensor, Special};
use crate::moments::Moments;

#[derive(Debug)]
enum PackedAligned {
    Dense(AlignedHistogram),
    /// Slot, count, sum; and how many slots there are in all.
    Sparse(Box<[(u16, u64, f64)]>, u16),
}

#[derive(Debug)]
struct PackedFeature {
    at: u32,
    special: Special,
    moments: Moments,
    aligned: Option<PackedAligned>,
    exponential: ExponentialHistogram,
}

/// What one sub-window saw.
#[derive(Debug)]
pub(crate) struct Packed {
    offered: u64,
    observed: u64,
    tensors: Box<[LiveTensor]>,
    features: Box<[PackedFeature]>,
    bytes: usize,
}

impl Packed {
    pub(crate) fn new(live: &Live) -> Self {
        let filled = live.features.iter().enumerate().filter(|(_, feature)| !feature.is_empty());
        let features: Box<[PackedFeature]> = filled.map(|(at, feature)| pack(at, feature)).collect();
        let heap: usize = features.iter().map(PackedFeature::heap_bytes).sum();
        let bytes = size_of::<Self>()
            + size_of_val(&*live.tensors)
            + features.len() * size_of::<PackedFeature>()
            + heap;
        let tensors = live.tensors.clone().into();
        Self { offered: live.offered, observed: live.observed, tensors, features, bytes }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds everything to `live`.
    pub(crate) fn add_to(&self, live: &mut Live) {
        live.offered += self.offered;
        live.observed += self.observed;
        for (into, tensor) in live.tensors.iter_mut().zip(&self.tensors) {
            into.missing += tensor.missing;
            into.wrong_type += tensor.wrong_type;
        }
        for feature in &self.features {
            live.features[feature.at as usize].merge(&feature.unpack());
        }
    }
}

fn pack(at: usize, feature: &LiveFeature) -> PackedFeature {
    PackedFeature {
        at: at as u32,
        special: feature.special,
        moments: feature.moments,
        aligned: feature.aligned.as_ref().map(PackedAligned::new),
        exponential: feature.exponential.clone(),
    }
}

impl PackedFeature {
    fn heap_bytes(&self) -> usize {
        let buckets = self.exponential.positive.counts.len() + self.exponential.negative.counts.len();
        buckets * size_of::<u64>() + self.aligned.as_ref().map_or(0, PackedAligned::bytes)
    }

    fn unpack(&self) -> LiveFeature {
        LiveFeature {
            special: self.special,
            moments: self.moments,
            aligned: self.aligned.as_ref().map(PackedAligned::unpack),
            exponential: self.exponential.clone(),
        }
    }
}

impl PackedAligned {
    fn new(histogram: &AlignedHistogram) -> Self {
        let filled = histogram.counts.iter().filter(|&&count| count > 0).count();
        if filled * size_of::<(u16, u64, f64)>() >= histogram.counts.len() * size_of::<(u64, f64)>() {
            return Self::Dense(histogram.clone());
        }
        let slots = histogram.counts.iter().zip(&histogram.sums).enumerate();
        let filled = slots.filter(|(_, (count, _))| **count > 0);
        let cells = filled.map(|(slot, (&count, &sum))| (slot as u16, count, sum)).collect();
        Self::Sparse(cells, histogram.counts.len() as u16)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(histogram) => histogram.counts.len() * size_of::<(u64, f64)>(),
            Self::Sparse(cells, _) => size_of_val(&**cells),
        }
    }

    fn unpack(&self) -> AlignedHistogram {
        match self {
            Self::Dense(histogram) => histogram.clone(),
            Self::Sparse(cells, slots) => {
                let mut histogram = AlignedHistogram::new(usize::from(*slots));
                for &(slot, count, sum) in cells {
                    histogram.counts[usize::from(slot)] = count;
                    histogram.sums[usize::from(slot)] = sum;
                }
                histogram
            }
        }
    }
}
