//! Which feedback is evidence of a trial: once for each unit, feedback and split.
//!
//! Next: `report`.

use super::arm::MAX_ARMS;
use super::feedback::{FeedbackLedger, GivenFeedback};
use super::ledger::Ledger;
use super::units::{MAX_LEVELS, UnitTable};
use crate::feedback::declared::{FeedbackSpec, MAX_FEEDBACKS};

/// What feedback is for a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is evidence.
    Evidence,
    /// Its unit has given it before.
    Repeated,
    /// The trial has no such arm or split, or has had too many feedbacks.
    Unplaced,
}

impl Ledger {
    /// Counts feedback. `units` are those of the trial.
    pub fn add_feedback(
        &mut self,
        name: &str,
        spec: &FeedbackSpec,
        given: GivenFeedback,
        units: Option<&UnitTable>,
    ) -> Counted {
        let GivenFeedback { arm, split, unit, .. } = given;
        let is_known = usize::from(arm) < self.arms.len().min(MAX_ARMS)
            && usize::from(split) < self.splits.len().min(MAX_LEVELS);
        let Some(number) = self.feedback_number(name, spec, units).filter(|_| is_known) else {
            return Counted::Unplaced;
        };
        let ledger = &mut self.feedback[usize::from(number)];
        let is_first = unit.zip(units).is_none_or(|(unit, units)| units.first_feedback(unit, number, split));
        if !is_first {
            ledger.add_repeated(given);
            return Counted::Repeated;
        }
        ledger.add(given);
        Counted::Evidence
    }

    /// The number of a feedback, which begins anew if its range or direction has changed. `None` beyond [`MAX_FEEDBACKS`].
    fn feedback_number(&mut self, name: &str, spec: &FeedbackSpec, units: Option<&UnitTable>) -> Option<u8> {
        let place = self.feedback.iter().position(|ledger| ledger.name == name);
        match place.map(|place| (place, &self.feedback[place])) {
            Some((place, known)) if (known.range, known.good) == (spec.range, spec.good) => {
                let ledger = &mut self.feedback[place];
                (ledger.coverage, ledger.within_ms) = (spec.coverage, spec.within_ms);
                Some(place as u8)
            }
            Some((place, _)) => {
                self.feedback[place] = FeedbackLedger::new(name, spec);
                if let Some(units) = units {
                    units.clear_feedback(place as u8);
                }
                Some(place as u8)
            }
            None if self.feedback.len() < MAX_FEEDBACKS => {
                self.feedback.push(FeedbackLedger::new(name, spec));
                Some(self.feedback.len() as u8 - 1)
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests;
