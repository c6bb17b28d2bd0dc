//! Sample-ratio mismatch: whether units reach the arms in the parts that the slots give them, over the whole history of the weights.
//!
//! A unit that is seen for the first time is on the challenger with the probability of the weight at that moment, whichever keys come
//! often. For each split the Bayes factor of a Dirichlet prior around the weight (concentration 10 000) against the weight is a
//! martingale (Lindon and Malek 2022), and so is their product over the splits. A mismatch is a defect of the assignment or of the
//! counting: it pauses, and never rolls back.

use super::evidence::{CHALLENGER, CHAMPION, Evidence};
use crate::stats::beta::ln_beta;

/// The e-value at which a sample-ratio mismatch is shown: one in a thousand attempts without a defect.
pub const SAMPLE_RATIO_THRESHOLD: f64 = 1_000.0;
/// How firmly the prior believes in the weight, in units.
const CONCENTRATION: f64 = 10_000.0;

/// What the test has found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleRatio {
    /// Distinct units of champion and challenger.
    pub units: [u64; 2],
    /// Those that the weights make expect on the challenger.
    pub expected: f64,
    /// ln of the greatest Bayes factor so far.
    pub ln_e_value: f64,
}

/// Tests the units of the trial.
pub fn sample_ratio(evidence: &Evidence) -> SampleRatio {
    let mut by_split = vec![[0u64; 2]; evidence.splits.len()];
    let mut found = SampleRatio::default();
    let mut ln_now = 0.0;
    for row in &evidence.rows {
        let Some(weight) = evidence.weight(row.split) else { continue };
        let new = row.arms.each_ref().map(|counts| counts.first_requests);
        let counts = &mut by_split[row.split];
        let before = ln_bayes_factor(*counts, weight);
        (0..2).for_each(|arm| counts[arm] += new[arm]);
        ln_now += ln_bayes_factor(*counts, weight) - before;
        found.ln_e_value = found.ln_e_value.max(ln_now);
        (0..2).for_each(|arm| found.units[arm] += new[arm]);
        found.expected += weight * (new[CHAMPION] + new[CHALLENGER]) as f64;
    }
    found
}

/// ln of the Bayes factor of "another share than `weight`" for counts of champion and challenger.
pub(super) fn ln_bayes_factor(counts: [u64; 2], weight: f64) -> f64 {
    let prior = [CONCENTRATION * (1.0 - weight), CONCENTRATION * weight];
    let [champion, challenger] = counts.map(|count| count as f64);
    ln_beta(prior[CHAMPION] + champion, prior[CHALLENGER] + challenger)
        - ln_beta(prior[CHAMPION], prior[CHALLENGER])
        - champion * (1.0 - weight).ln()
        - challenger * weight.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    // Expected values: the formula in Python, three batches at 50 : 50.
    #[test]
    fn batches_match_their_vectors() {
        let mut sum = [0; 2];
        for (batch, expected) in [[5_000, 5_200], [5_000, 5_300], [5_000, 5_150]]
            .into_iter()
            .zip([0.638_603, 3.541_091, 4.495_926])
        {
            (0..2).for_each(|arm| sum[arm] += batch[arm]);
            close(ln_bayes_factor(sum, 0.5), expected, 1e-5);
        }
    }
}
