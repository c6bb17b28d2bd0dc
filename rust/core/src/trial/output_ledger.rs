//! What the outputs of the answers of a trial add up to: for each feature the values by arm and bin, and for each challenger the sums by
//! which its distribution is compared with the champion's.
//!
//! A unit counts with one answer. It was the challenger's with the probability of the weight, whatever it was asked, so that answers are
//! compared at equal times and nothing needs to be known of how they change. Next: `report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::TrialCount;
use super::ledger::{Ledger, SplitLedger};
use super::outputs::{MAX_BINS, MAX_WATCHED, WatchedFeature, WatchedOutputs};
use crate::stats::difference_sequence::{DifferenceSums, Drawn};

/// The weight of the reference among the expected shares, in values.
const REFERENCE_VALUES: f64 = 100.0;
/// The values by which shares are expected: when there are more, the older ones count for half.
const EXPECTED_FROM: f64 = 10_000.0;
/// Requests of each arm without which the share that is answered is taken to be 1.
const LEAST_ENDED: u64 = 200;

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
    pending: BTreeMap<Place, BTreeMap<u8, Vec<u64>>>,
}

/// The split, and the one of the unit's answer before, which was the champion's.
type Place = (u8, Option<u8>);

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

    fn add(&mut self, (split, arm): (u8, u8), counts: &BTreeMap<Option<u8>, Vec<u64>>) {
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

    fn shares(&self) -> Vec<f64> {
        let total: f64 = self.expected.iter().sum();
        self.expected.iter().map(|count| count / total).collect()
    }

    fn learn(&mut self, arm: u8, counts: &[u64]) {
        let of_arm = self.counts.entry(arm).or_insert_with(|| vec![0; counts.len()]);
        of_arm.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        self.expected.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += count as f64);
        while self.expected.iter().sum::<f64>() > EXPECTED_FROM {
            self.expected.iter_mut().for_each(|count| *count /= 2.0);
        }
    }
}

impl Ledger {
    /// Counts these features from now on. What was counted of others, or on other bins, is forgotten: it cannot be compared.
    pub fn watch(&mut self, watched: &WatchedOutputs) {
        if self.outputs.as_ref().is_none_or(|outputs| outputs.digest != watched.digest) {
            self.outputs = Some(OutputLedger::new(watched));
        }
    }

    pub(super) fn add_outputs(
        &mut self,
        place: (u8, u8),
        digest: u64,
        counts: &BTreeMap<Option<u8>, Vec<u64>>,
    ) {
        if let Some(outputs) = self.outputs.as_mut().filter(|outputs| outputs.digest == digest) {
            outputs.add(place, counts);
        }
    }

    /// Adds what came since the last time to the sums. All arms must have been added: what is expected must not depend on these values.
    pub fn settle_outputs(&mut self) {
        let Some(outputs) = &mut self.outputs else { return };
        let pending = std::mem::take(&mut outputs.pending);
        if pending.is_empty() {
            return;
        }
        let arms = self.arms.len() as u8;
        let has_keys = self.identity.sticky.is_some();
        let mut from = 0;
        for feature in &mut outputs.features {
            let (bins, shares) = (from..from + feature.expected.len(), feature.shares());
            from = bins.end;
            let none = vec![0u64; bins.len()];
            for (&place, of_arms) in &pending {
                let of = |arm: u8| of_arms.get(&arm).map_or(&none[..], |counts| &counts[bins.clone()]);
                for challenger in 1..arms {
                    let weight = weight(&self.splits, place, challenger).map(|weight| {
                        if has_keys {
                            weight
                        } else {
                            answered(&self.splits[usize::from(place.0)], challenger, weight)
                        }
                    });
                    let Some(weight) = weight else { continue };
                    let sums = feature.sums.entry(challenger);
                    sums.or_insert_with(|| DifferenceSums::new(bins.len())).add(Drawn {
                        weight,
                        expected: &shares,
                        counts: [of(0), of(challenger)],
                    });
                }
            }
            for of_arms in pending.values() {
                of_arms.iter().for_each(|(&arm, counts)| feature.learn(arm, &counts[bins.clone()]));
            }
        }
    }
}

/// The probability that a unit was the challenger's and not the champion's; `None` if one of them had no slot for it.
///
/// A unit with an earlier answer of the champion has not had one of the slots that the challenger had then.
fn weight(splits: &[SplitLedger], (split, earlier): Place, challenger: u8) -> Option<f64> {
    let slots = |split: u8, arm: u8| {
        let slots = splits.get(usize::from(split)).and_then(|split| split.slots.get(&arm));
        f64::from(slots.copied().unwrap_or(0))
    };
    let champion = slots(split, 0);
    let gained = slots(split, challenger) - earlier.map_or(0.0, |earlier| slots(earlier, challenger));
    (champion > 0.0 && gained > 0.0).then(|| gained / (gained + champion))
}

/// The weight among answers, if each request is its own unit: a version that answers fewer of its requests has fewer.
fn answered(split: &SplitLedger, challenger: u8, weight: f64) -> f64 {
    let share = |arm: u8| {
        let counts = &split.arms.get(&arm)?.counts;
        let ended = counts.routed().saturating_sub(counts.in_flight());
        let answers = counts.get(TrialCount::Ran).saturating_sub(counts.errors());
        (ended >= LEAST_ENDED && answers > 0).then(|| answers as f64 / ended as f64)
    };
    match (share(0), share(challenger)) {
        (Some(champion), Some(challenger)) => {
            let of_challenger = weight * challenger;
            of_challenger / (of_challenger + (1.0 - weight) * champion)
        }
        _ => weight,
    }
}

#[cfg(test)]
mod tests;
