//! The gate `availability`: whether the challenger refuses requests more often: they are shed, it is not ready, or another version was
//! asked in its place.
//!
//! An event is a refusal that is the first of its unit, in the way of `error_rate`. It needs no run, so that the weights of the slots
//! stand as they are.

use super::evidence::{Evidence, Row};
use super::exposure::{Correction, Exposure};
use super::timeline::{RowEvents, Tally, Timeline};

/// The refusals of the trial.
pub fn timeline(evidence: &Evidence, steps_ms: &[u64]) -> Timeline {
    let exposure = Exposure::new(evidence, Correction::None);
    let look = |row: &Row| {
        let after = row.arms.each_ref().map(|counts| counts.refusals_after.clone());
        let found = RowEvents::of(row, |counts| Tally { n: counts.ended, bad: counts.first_refusals });
        Some(RowEvents { after, ..found })
    };
    Timeline::new(evidence, &exposure, steps_ms, look)
}
