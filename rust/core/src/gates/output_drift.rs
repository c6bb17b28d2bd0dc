//! The gate `output_drift`: whether the outputs of the challenger are distributed otherwise than the champion's, by more than a limit.
//!
//! It is looked at all outputs that the baseline has bins for, or at one. Each feature is compared on its bins, so that the distance is
//! never greater than that of the values themselves. The gate fails if the mean e-value of all sets of all features reaches the threshold
//! (`stats::difference_sequence`): then one of them is further apart than the limit.

use super::evidence::{CHALLENGER, CHAMPION, Evidence, OutputEvidence};
use super::question::OutputDriftGate;
use super::verdict::Verdict;
use crate::stats::difference_sequence::{Distance, ln_add, ln_e_value};

/// The normal quantile of the probability with which a distance is told to be detectable, 0.8.
pub const POWER: f64 = 0.841_621_233_572_914_2;

/// The outputs of champion and challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputComparison {
    /// The distance that is compared.
    pub distance: Distance,
    /// The limit; `None` for a gate that is shown and stops nothing.
    pub limit: Option<f64>,
    /// The feature that differs most; `None` without one.
    pub feature: Option<String>,
    /// Its values of champion and challenger.
    pub values: [u64; 2],
    /// Its distance; NaN without values.
    pub estimate: f64,
    /// The distance of any feature is in it, at every moment.
    pub interval: (f64, f64),
    /// ln of the mean e-value of "no feature is further apart than the limit".
    pub ln_e_value: f64,
    /// The distance that so many values show with probability 0.8; infinite if there is none.
    pub detectable: f64,
    /// The features that were looked at.
    pub features: usize,
    /// Features that are not counted, because there are too many.
    pub left_out: usize,
}

/// What a comparison is to be judged by: ln of the threshold, and the confidence of the interval.
#[derive(Clone, Copy, Debug)]
pub struct Certainty {
    /// ln of the e-value that fails.
    pub ln_threshold: f64,
    /// The confidence of the interval.
    pub confidence: f64,
}

/// Compares the outputs that a gate is about: those of the output `name` or the feature of that name, all if it is empty.
pub fn compare(
    evidence: &Evidence,
    name: &str,
    gate: &OutputDriftGate,
    certainty: Certainty,
) -> OutputComparison {
    let is_meant = |of: &&OutputEvidence| {
        [&of.output, &of.column, &label(&of.output, &of.column)].into_iter().any(|known| known == name)
    };
    let features: Vec<&OutputEvidence> =
        evidence.outputs.iter().filter(|of| name.is_empty() || is_meant(of)).collect();
    let distance = gate.distance;
    let sets: usize = features.iter().map(|of| of.sums.set_count(distance)).sum();
    let Certainty { ln_threshold, confidence } = certainty;
    let mut found = OutputComparison {
        distance,
        limit: gate.above,
        feature: None,
        values: [0; 2],
        estimate: f64::NAN,
        interval: (0.0, 0.0),
        ln_e_value: f64::NEG_INFINITY,
        detectable: 0.0,
        features: features.len(),
        left_out: evidence.outputs_left_out,
    };
    let limit = gate.above.unwrap_or(0.0);
    for OutputEvidence { output, column, values, sums } in features {
        let is_compared = !values.contains(&0);
        let estimate = if is_compared { sums.estimate(distance) } else { f64::NAN };
        if found.feature.is_none() || estimate > found.estimate || found.estimate.is_nan() {
            found.feature = Some(label(output, column));
            (found.values, found.estimate) = (*values, estimate);
        }
        if !is_compared {
            // The sums of one version's values alone say how far they are from what was expected. Their wager counts as lost.
            found.interval.1 = 1.0;
            continue;
        }
        let (low, high) = sums.interval(distance, (sets, 1.0 - confidence));
        found.interval = (found.interval.0.max(low), found.interval.1.max(high));
        found.ln_e_value = ln_add(found.ln_e_value, sums.ln_wealth(distance, limit));
        // The feature of which least can be seen decides.
        let beyond = sums.detectable_beyond(distance, (sets, ln_threshold), POWER);
        found.detectable = found.detectable.max(limit + beyond);
    }
    if found.estimate.is_nan() {
        return OutputComparison {
            interval: (0.0, 1.0),
            ln_e_value: 0.0,
            detectable: f64::INFINITY,
            ..found
        };
    }
    // No distance is above 1, and without a limit none is caught.
    let is_caught = found.detectable <= 1.0 && gate.above.is_some();
    let detectable = if is_caught { found.detectable } else { f64::INFINITY };
    OutputComparison { ln_e_value: ln_e_value(found.ln_e_value, sets), detectable, ..found }
}

/// The name of a feature: `score`, `score.risk`, or `scores[2]` for an element without a name of its own.
fn label(output: &str, column: &str) -> String {
    match column {
        _ if output == column => output.to_owned(),
        _ if column.bytes().all(|byte| byte.is_ascii_digit()) => format!("{output}[{column}]"),
        _ => format!("{output}.{column}"),
    }
}

/// The verdict of a comparison for the gate on `name`, at an e-value of `exp(ln_threshold)`.
pub fn verdict(
    evidence: &Evidence,
    comparison: &OutputComparison,
    name: &str,
    ln_threshold: f64,
) -> (Verdict, Option<String>) {
    let undecided = |words: String| (Verdict::Undecided, Some(words));
    if comparison.features == 0 {
        return undecided(match (name, evidence.outputs.is_empty()) {
            (_, true) => {
                "no output is counted: the endpoint has no baseline with columns of its outputs".to_owned()
            }
            (name, false) => format!("the baseline has no output or column {name}"),
        });
    }
    for arm in [CHALLENGER, CHAMPION] {
        if comparison.values[arm] == 0 {
            return undecided(format!("no answer of {} is counted yet", evidence.names[arm]));
        }
    }
    match comparison.limit {
        None => undecided("it is shown, and stops nothing".to_owned()),
        Some(_) if comparison.ln_e_value >= ln_threshold => (Verdict::Fail, None),
        Some(above) if comparison.detectable.is_infinite() => {
            undecided(format!("so few answers show no distance above {above}, however great it is"))
        }
        Some(_) => (Verdict::Pass, None),
    }
}

#[cfg(test)]
mod tests;
