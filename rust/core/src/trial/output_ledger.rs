//! What the outputs of the answers of a trial add up to: for each feature the values by arm and bin, and for each challenger the sums by
//! which its distribution is compared with the champion's.
//!
//! A unit counts with one answer. It was the challenger's with the probability of the weight, whatever it was asked, so that answers are
//! compared at equal times and nothing needs to be known of how they change. Next: `output_count`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outputs::{MAX_BINS, MAX_WATCHED, WatchedFeature, WatchedOutputs};
use crate::stats::difference_sequence::DifferenceSums;

/// The weight of the reference among the expected shares, in values.
const REFERENCE_VALUES: f64 = 100.0;
/// The values by which shares are expected: when there are more, the older ones count for half.
const EXPECTED_FROM: f64 = 10_000.0;

/// What is counted of the outputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputLedger {
    /// The hash of the features and their bins.
    pub digest: u64,
    /// The features.
    pub features: Vec<FeatureLedger>,
    /// Features that are not counted, because there are too many.
    pub left_out: usize,
    /// What came since the sums were made: by split and earlier split of the champion, by arm.
    #[serde(skip)]
    pub(super) pending: BTreeMap<Place, BTreeMap<u8, Vec<u64>>>,
}

/// The split, and the one of the unit's answer before, which was the champion's.
pub(super) type Place = (u8, Option<u8>);

/// What is counted of a feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureLedger {
    /// The output's name.
    pub output: String,
    /// The name of the element.
    pub column: String,
    /// Values by arm and bin.
    pub counts: BTreeMap<u8, Vec<u64>>,
    /// The sums of each challenger against the champion.
    pub sums: BTreeMap<u8, DifferenceSums>,
    /// The values, those of the reference among them, that expected shares are taken from.
    expected: Vec<f64>,
}

impl OutputLedger {
    /// Without a value.
    pub fn new(watched: &WatchedOutputs) -> OutputLedger {
        OutputLedger {
            digest: watched.digest,
            features: watched.features().iter().map(FeatureLedger::new).collect(),
            left_out: watched.left_out,
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, (split, arm): (u8, u8), counts: &BTreeMap<Option<u8>, Vec<u64>>) {
        for (earlier, counts) in counts {
            let of_arm = self.pending.entry((split, *earlier)).or_default().entry(arm);
            let sums = of_arm.or_insert_with(|| vec![0; counts.len()]);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Whether a stored state may be this one, of a ledger with so many arms.
    pub fn is_sound(&self, arms: usize) -> bool {
        let is_arm = |arm: &u8| usize::from(*arm) < arms;
        self.features.len() <= MAX_WATCHED
            && self.features.iter().all(|feature| {
                let bins = feature.expected.len();
                (2..=MAX_BINS).contains(&bins)
                    && feature.expected.iter().all(|count| count.is_finite() && *count >= 0.0)
                    && feature.expected.iter().sum::<f64>() > 0.0
                    && feature.counts.iter().all(|(arm, counts)| is_arm(arm) && counts.len() == bins)
                    && feature.sums.iter().all(|(arm, sums)| is_arm(arm) && sums.is_sound(bins))
            })
    }
}

impl FeatureLedger {
    fn new(feature: &WatchedFeature) -> FeatureLedger {
        FeatureLedger {
            output: feature.output.clone(),
            column: feature.column.clone(),
            counts: BTreeMap::new(),
            sums: BTreeMap::new(),
            expected: feature.reference().iter().map(|share| share * REFERENCE_VALUES).collect(),
        }
    }

    /// The number of its bins.
    pub fn bins(&self) -> usize {
        self.expected.len()
    }

    /// The values of an arm.
    pub fn values(&self, arm: u8) -> u64 {
        self.counts.get(&arm).into_iter().flatten().sum()
    }

    /// The share of each bin that is expected.
    pub(super) fn shares(&self) -> Vec<f64> {
        let total: f64 = self.expected.iter().sum();
        self.expected.iter().map(|count| count / total).collect()
    }

    /// Adds values of an arm.
    pub(super) fn learn(&mut self, arm: u8, counts: &[u64]) {
        let of_arm = self.counts.entry(arm).or_insert_with(|| vec![0; counts.len()]);
        of_arm.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        self.expected.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += count as f64);
        while self.expected.iter().sum::<f64>() > EXPECTED_FROM {
            self.expected.iter_mut().for_each(|count| *count /= 2.0);
        }
    }
}
