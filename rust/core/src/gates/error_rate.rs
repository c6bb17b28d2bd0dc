//! The gate `error_rate`: whether runs of the challenger fail more often.
//!
//! An event is an error that is the first of its unit in the attempt, or the first since its key could move to the challenger.

use super::evidence::{Evidence, Row};
use super::exposure::{Correction, Exposure};
use super::timeline::{RowEvents, Tally, Timeline};

/// The errors of the trial.
pub fn timeline(evidence: &Evidence, steps_ms: &[u64]) -> Timeline {
    let exposure = Exposure::new(evidence, Correction::Ran);
    let look = |row: &Row| {
        let after = row.arms.each_ref().map(|counts| counts.errors_after.clone());
        let found = RowEvents::of(row, |counts| Tally { n: counts.ran, bad: counts.first_errors });
        Some(RowEvents { after, ..found })
    };
    Timeline::new(evidence, &exposure, steps_ms, look)
}
