//! Whether a few keys have most of the challenger's errors, so that the test on units sees few of many failing requests.

use super::evidence::{ArmTotals, CHALLENGER, CHAMPION, Evidence};

/// The share of requests that fail from which it matters.
const ERROR_SHARE: f64 = 0.05;
/// How many times the champion's share.
const TIMES_CHAMPION: f64 = 2.0;
/// Errors without which nothing is said.
const LEAST_ERRORS: u64 = 20;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FewKeys {
    /// Whether the challenger's errors are many, and mostly of three units.
    pub is_found: bool,
    /// The shares of champion's and challenger's runs that failed; `None` without runs.
    pub error_share: [Option<f64>; 2],
    /// The part of the challenger's errors that three units have, at least; `None` without errors that have a unit.
    pub of_three: Option<f64>,
}

/// Looks at the errors of requests.
pub fn few_keys(evidence: &Evidence) -> FewKeys {
    let share = |arm: &ArmTotals| (arm.ran > 0).then(|| arm.errors as f64 / arm.ran as f64);
    let error_share = evidence.totals.each_ref().map(share);
    let erring = evidence.totals[CHALLENGER].erring_units;
    let of_three = (erring.seen > 0).then(|| erring.of_three as f64 / erring.seen as f64);
    let is_many = error_share[CHALLENGER].is_some_and(|share| {
        share > ERROR_SHARE && share > TIMES_CHAMPION * error_share[CHAMPION].unwrap_or(0.0)
    });
    let is_found = is_many && erring.seen >= LEAST_ERRORS && of_three.is_some_and(|part| part > 0.5);
    FewKeys { is_found, error_share, of_three }
}
