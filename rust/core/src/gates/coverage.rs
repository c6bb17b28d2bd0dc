//! How many answers of each version have a feedback, and whether they are as many as its declaration asks for (`coverage`).
//!
//! The means are those of answers with feedback. If who gives it depends on the value, and in another way for each version, then the
//! same number of answers may have it, and the means differ for that alone. What is missing can hide no more than its share of the range,
//! so that a declaration may ask for a share. Feedback of people comes for few answers, so that no share is asked for unless it is
//! declared.
//!
//! A feedback that may still come is not missing: a share is enough if all answers have it, or those that have become older than
//! `within`, which no feedback is taken for any more. Each receipt counts here, also if its unit had given the feedback before.
//!
//! Next: `few_keys`.

use super::evidence::{CHALLENGER, CHAMPION, Evidence, FeedbackEvidence, Row};

const HOUR_MS: u64 = 3_600_000;
const HOUR_MINUTES: u64 = 60;
/// One percent in the unit of a declared share.
const PERCENT: f64 = 100.0;

/// Answers of one version, and how many of them have the feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Covered {
    /// The answers; a row that is partly in the time that is looked at counts in part.
    pub answers: f64,
    /// The receipts that were used.
    pub given: u64,
}

impl Covered {
    /// The part that has the feedback, 1 at most; `None` without an answer.
    fn share(self) -> Option<f64> {
        (self.answers > 0.0).then(|| (self.given as f64 / self.answers).min(1.0))
    }
}

/// How many answers of champion and challenger have a feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coverage {
    /// All answers.
    pub all: [Covered; 2],
    /// Those that are older than `within`.
    pub settled: [Covered; 2],
    /// The share that is asked for, in ten-thousandths.
    asked: Option<u16>,
}

/// The coverage of a feedback.
pub fn of(evidence: &Evidence, feedback: &FeedbackEvidence) -> Coverage {
    let from = first_hour(evidence, feedback);
    let settled = evidence.as_of_ms.saturating_sub(feedback.within_ms) / HOUR_MS;
    Coverage {
        all: covered(evidence, feedback, (from, u64::MAX / HOUR_MINUTES)),
        settled: covered(evidence, feedback, (from, settled)),
        asked: feedback.coverage,
    }
}

/// The first hour of which both the answers and what was given on them are known whole.
fn first_hour(evidence: &Evidence, feedback: &FeedbackEvidence) -> u64 {
    // Of the first hour that is left, other splits may have fallen out.
    let of_strata = feedback.strata.first().filter(|_| feedback.dropped > 0);
    let of_strata = of_strata.map(|first| u64::from(first.hour) + 1);
    let of_rows = evidence.rows.first().filter(|_| evidence.rows_dropped > 0);
    let of_rows = of_rows.map(|first| first.minute.div_ceil(HOUR_MINUTES));
    of_strata.max(of_rows).unwrap_or(0)
}

/// What was given on answers of the hours from `from` to before `to`.
fn covered(evidence: &Evidence, feedback: &FeedbackEvidence, (from, to): (u64, u64)) -> [Covered; 2] {
    [CHAMPION, CHALLENGER].map(|arm| Covered {
        answers: evidence
            .rows
            .iter()
            .map(|row| answers(row, arm) as f64 * part_within(row, from * HOUR_MINUTES, to * HOUR_MINUTES))
            .sum(),
        given: feedback
            .strata
            .iter()
            .filter(|stratum| (from..to).contains(&u64::from(stratum.hour)))
            .map(|stratum| stratum.arms[arm].n.saturating_add(stratum.repeated[arm]))
            .fold(0, u64::saturating_add),
    })
}

/// Answers that had a receipt.
fn answers(row: &Row, arm: usize) -> u64 {
    row.arms[arm].ran.saturating_sub(row.arms[arm].errors)
}

/// The part of a row's minutes that lies from the minute `from` to before `to`.
fn part_within(row: &Row, from: u64, to: u64) -> f64 {
    let end = row.minute.saturating_add(u64::from(row.minutes));
    let within = end.min(to).saturating_sub(row.minute.max(from));
    within as f64 / f64::from(row.minutes)
}

impl Coverage {
    /// The share that is asked for.
    pub fn least(&self) -> Option<f64> {
        self.asked.map(|share| f64::from(share) / PERCENT / 100.0)
    }

    /// The share of an arm's answers that have the feedback: of all, or of those that are older than `within`, whichever is more.
    /// `None` without an answer.
    pub fn share(&self, arm: usize) -> Option<f64> {
        match (self.all[arm].share(), self.settled[arm].share()) {
            (Some(all), Some(settled)) => Some(all.max(settled)),
            (all, settled) => all.or(settled),
        }
    }

    /// What is missing, in words, if a share is asked for and a version has less.
    pub fn lack(&self, name: &str, versions: &[String; 2]) -> Option<String> {
        let least = self.least()?;
        let found = |arm: usize| Some((arm, self.share(arm).filter(|share| *share < least)?));
        let (arm, share) = found(CHALLENGER).or_else(|| found(CHAMPION))?;
        let of = match self.settled[arm].share() {
            Some(settled) if settled >= share => " that are older than within",
            _ => "",
        };
        let (share, version) = (share * 100.0, &versions[arm]);
        let asked = f64::from(self.asked?) / PERCENT;
        Some(format!(
            "{share:.1} % of the answers of {version}{of} have feedback {name}, and its coverage asks for {asked} %"
        ))
    }
}

#[cfg(test)]
mod tests;
