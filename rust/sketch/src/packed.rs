//! A closed sub-window in little memory: only features with values, and only their filled slots where few are filled.
//!
//! Next: `window`.

use crate::aligned::AlignedHistogram;
use crate::exponential::ExponentialHistogram;
use crate::live::{Bins, Live, LiveFeature, LiveTensor, Special};
use crate::moments::Moments;

#[derive(Debug)]
enum PackedBins {
    Dense(AlignedHistogram),
    /// Slot, count, sum; and how many slots there are in all.
    Sparse(Box<[(u16, u64, f64)]>, u16),
    Exponential(ExponentialHistogram),
}

#[derive(Debug)]
struct PackedFeature {
    at: u32,
    special: Special,
    moments: Moments,
    bins: PackedBins,
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
        let heap: usize = features.iter().map(|feature| feature.bins.bytes()).sum();
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
            let bins = feature.bins.unpack();
            let unpacked = LiveFeature { special: feature.special, moments: feature.moments, bins };
            live.features[feature.at as usize].merge(&unpacked);
        }
    }
}

fn pack(at: usize, feature: &LiveFeature) -> PackedFeature {
    let bins = match &feature.bins {
        Bins::Exponential(histogram) => PackedBins::Exponential(histogram.clone()),
        Bins::Aligned(histogram) => {
            let filled = histogram.counts.iter().filter(|&&count| count > 0).count();
            if filled * size_of::<(u16, u64, f64)>() >= histogram.counts.len() * size_of::<(u64, f64)>() {
                PackedBins::Dense(histogram.clone())
            } else {
                let slots = histogram.counts.iter().zip(&histogram.sums).enumerate();
                let filled = slots.filter(|(_, (count, _))| **count > 0);
                let cells = filled.map(|(slot, (&count, &sum))| (slot as u16, count, sum)).collect();
                PackedBins::Sparse(cells, histogram.counts.len() as u16)
            }
        }
    };
    PackedFeature { at: at as u32, special: feature.special, moments: feature.moments, bins }
}

impl PackedBins {
    fn bytes(&self) -> usize {
        match self {
            Self::Dense(histogram) => histogram.counts.len() * size_of::<(u64, f64)>(),
            Self::Sparse(cells, _) => size_of_val(&**cells),
            Self::Exponential(histogram) => {
                (histogram.positive.counts.len() + histogram.negative.counts.len()) * size_of::<u64>()
            }
        }
    }

    fn unpack(&self) -> Bins {
        match self {
            Self::Dense(histogram) => Bins::Aligned(histogram.clone()),
            Self::Exponential(histogram) => Bins::Exponential(histogram.clone()),
            Self::Sparse(cells, slots) => {
                let mut histogram = AlignedHistogram::new(usize::from(*slots));
                for &(slot, count, sum) in cells {
                    histogram.counts[usize::from(slot)] = count;
                    histogram.sums[usize::from(slot)] = sum;
                }
                Bins::Aligned(histogram)
            }
        }
    }
}
