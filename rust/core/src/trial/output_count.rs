//! How values of outputs become sums: with the weight at which they came, and with shares that were expected before.
//!
//! Next: `report`.

use std::collections::BTreeMap;

use super::counts::TrialCount;
use super::ledger::{Ledger, SplitLedger};
use super::output_ledger::{OutputLedger, Place};
use super::outputs::WatchedOutputs;
use crate::stats::difference_sequence::{DifferenceSums, Drawn};

/// Requests of each arm without which the share that is answered is taken to be 1.
const LEAST_ENDED: u64 = 200;

impl Ledger {
    /// Counts these features from now on. What was counted of others, or on other bins, is forgotten: it cannot be compared.
    pub fn watch(&mut self, watched: Option<&WatchedOutputs>) {
        let digest = self.outputs.as_ref().map(|outputs| outputs.digest);
        if digest != watched.map(|watched| watched.digest) {
            self.outputs = watched.map(OutputLedger::new);
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
            let (bins, shares) = (from..from + feature.bins(), feature.shares());
            from = bins.end;
            let none = vec![0u64; bins.len()];
            for (&place, of_arms) in &pending {
                let of = |arm: u8| of_arms.get(&arm).map_or(&none[..], |counts| &counts[bins.clone()]);
                for challenger in 1..arms {
                    let drawn = weight(&self.splits, place, challenger).map(|weight| match has_keys {
                        true => weight,
                        false => answered(&self.splits[usize::from(place.0)], challenger, weight),
                    });
                    let Some(weight) = drawn else { continue };
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
