//! The gate `feedback.NAME`: whether what is given on the challenger's answers is worse in the mean.
//!
//! Values are compared within strata: answers of one hour and one split of the slots. There both versions have the same age, the same
//! time of day and the same weights, so that equal versions have equal means however late feedback comes. A stratum with `n_h` values of
//! the champion and `n_c` of the challenger has the information `n_h n_c / (n_h + n_c)`, and adds that many times the difference of its
//! means to a sum (Cochran 1954). The sum is tested as a mean is that is watched without pause (`stats::mean_sequence`).
//!
//! The variance of a value is estimated within the strata, with one more value at each end of the range: it begins at a quarter of the
//! squared range, which no values in it exceed (Popoviciu 1935), and never becomes 0. The test assumes a normal sum. While the sum has few
//! values that differ, as with rare labels, that is not so: `rho` is therefore at least so large that a sum without any variance has to
//! reach the bound of Freedman (1975) for steps of the size of the range.

use super::coverage::{self, Coverage};
use super::evidence::{CHALLENGER, CHAMPION, Evidence, FeedbackEvidence, Stratum, UnitKind};
use super::sample_ratio::{SAMPLE_RATIO_THRESHOLD, ln_bayes_factor};
use super::verdict::Verdict;
use crate::feedback::declared::{Good, Range};
use crate::feedback::moments::Moments;
use crate::stats::mean_sequence::{NormalMixture, narrowest_at};
use crate::stats::proportion::Interval;

/// The information at which the interval is narrowest, in values of the smaller arm.
const PLANNED: f64 = 1_000.0;
/// The normal quantile of the probability with which a difference is told to be detectable, 0.8.
const POWER: f64 = 0.841_621_233_572_914_2;

/// The feedback of champion and challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The sums of champion and challenger over all strata.
    pub totals: [Moments; 2],
    /// Values of units that had given it before.
    pub repeated: [u64; 2],
    /// Answers of champion and challenger, which had a receipt.
    pub answers: [u64; 2],
    /// The sum over all strata of information times the challenger's mean less the champion's.
    pub sum: f64,
    /// The information over all strata.
    pub information: f64,
    /// The variance of a value.
    pub variance: f64,
    /// ln of the Bayes factor of "feedback comes for one version more often than for the other".
    pub ln_coverage: f64,
    /// How many of the answers have feedback.
    pub coverage: Coverage,
    range: Range,
    good: Good,
}

/// Compares what was given of a feedback. Without any, the comparison is of nothing.
pub fn compare(evidence: &Evidence, name: &str) -> Comparison {
    let answers = [CHAMPION, CHALLENGER].map(|arm| {
        let totals = &evidence.totals[arm];
        totals.ran.saturating_sub(totals.errors)
    });
    let nothing = Comparison {
        totals: [Moments::default(); 2],
        repeated: [0; 2],
        answers,
        sum: 0.0,
        information: 0.0,
        variance: 0.25,
        ln_coverage: 0.0,
        coverage: Coverage::default(),
        range: Range::LABEL,
        good: Good::High,
    };
    match evidence.feedback.iter().find(|feedback| feedback.name == name) {
        None => nothing,
        Some(feedback) => Comparison {
            repeated: feedback.repeated,
            ln_coverage: ln_coverage(evidence, feedback),
            coverage: coverage::of(evidence, feedback),
            range: feedback.range,
            good: feedback.good,
            ..nothing
        }
        .with_strata(feedback),
    }
}

impl Comparison {
    fn with_strata(mut self, feedback: &FeedbackEvidence) -> Comparison {
        // One more value at each end is at least this far from the mean of both.
        let (mut distances, mut freedom) = (self.range.width() * self.range.width() / 2.0, 2.0);
        for Stratum { arms, .. } in &feedback.strata {
            let mut both = Moments::default();
            for (total, of_arm) in self.totals.iter_mut().zip(arms) {
                total.add(*of_arm);
                both.add(*of_arm);
            }
            distances += both.squared_distances();
            freedom += both.n.saturating_sub(1) as f64;
            let [Some(champion), Some(challenger)] = arms.each_ref().map(Moments::mean) else { continue };
            let information = arms[CHAMPION].n as f64 * arms[CHALLENGER].n as f64 / both.n as f64;
            self.information += information;
            self.sum += information * (challenger - champion);
        }
        self.variance = distances / freedom;
        self
    }

    /// The challenger's mean less the champion's; NaN without values of both in one stratum.
    pub fn difference(&self) -> f64 {
        if self.information > 0.0 { self.sum / self.information } else { f64::NAN }
    }

    /// How much worse the challenger's mean is; NaN without values of both.
    fn worse_by(&self) -> f64 {
        match self.good {
            Good::High => -self.difference(),
            Good::Low => self.difference(),
        }
    }

    fn mixture(&self, ln_threshold: f64) -> NormalMixture {
        let width = self.range.width();
        let least = 2.0 / 9.0 * ln_threshold * width * width;
        NormalMixture { rho: narrowest_at(PLANNED, self.variance, ln_threshold).max(least) }
    }

    fn variance_of_sum(&self) -> f64 {
        self.variance * self.information
    }

    /// ln of the e-value of "both means are equal", with the mixture for an e-value of `exp(ln_threshold)`.
    pub fn ln_e_value(&self, ln_threshold: f64) -> f64 {
        self.mixture(ln_threshold).ln_e_value(self.sum, self.variance_of_sum())
    }

    /// The interval of the difference, valid at every moment.
    pub fn interval(&self, confidence: f64) -> Interval {
        let ln_threshold = -(1.0 - confidence).ln();
        let half =
            self.mixture(ln_threshold).boundary(self.variance_of_sum(), ln_threshold) / self.information;
        let (low, high) = (self.difference() - half, self.difference() + half);
        Interval { low: low.max(-self.range.width()), high: high.min(self.range.width()) }
    }

    /// The smallest difference that so much data shows with probability 0.8; infinite if the range has none.
    pub fn detectable(&self, ln_threshold: f64) -> f64 {
        let variance = self.variance_of_sum();
        let sum = self.mixture(ln_threshold).boundary(variance, ln_threshold) + POWER * variance.sqrt();
        let difference = sum / self.information;
        if difference <= self.range.width() { difference } else { f64::INFINITY }
    }
}

/// ln of the Bayes factor of "another share of what was given is on the challenger than its share of the answers". An arm whose answers
/// are talked about less often is compared by those who do talk, so that the means say nothing.
fn ln_coverage(evidence: &Evidence, feedback: &FeedbackEvidence) -> f64 {
    let mut given = vec![[0u64; 2]; evidence.splits.len()];
    for Stratum { split, arms, .. } in &feedback.strata {
        (0..2).for_each(|arm| given[*split][arm] += arms[arm].n);
    }
    let mut answers = vec![[0u64; 2]; evidence.splits.len()];
    for row in &evidence.rows {
        (0..2).for_each(|arm| {
            answers[row.split][arm] += row.arms[arm].ran.saturating_sub(row.arms[arm].errors)
        });
    }
    let ln_bayes = |(split, given): (usize, &[u64; 2])| {
        let share = match (evidence.unit, answers[split]) {
            // A key counts once, however many answers it had.
            (UnitKind::Key, _) => evidence.weight(split)?,
            (UnitKind::Request, [0, _] | [_, 0]) => return None,
            (UnitKind::Request, [champion, challenger]) => challenger as f64 / (champion + challenger) as f64,
        };
        Some(ln_bayes_factor(*given, share))
    };
    given.iter().enumerate().filter_map(ln_bayes).sum()
}

/// The verdict of the feedback `name` whose challenger may be worse by `above`, at an e-value of `exp(ln_threshold)`.
pub fn verdict(
    evidence: &Evidence,
    comparison: &Comparison,
    (name, above): (&str, f64),
    ln_threshold: f64,
) -> (Verdict, Option<String>) {
    for arm in [CHALLENGER, CHAMPION] {
        if comparison.totals[arm].n == 0 {
            let words = format!("no feedback {name} was given on answers of {} yet", evidence.names[arm]);
            return (Verdict::Undecided, Some(words));
        }
    }
    if comparison.information == 0.0 {
        let words = "no hour has feedback on answers of both versions yet";
        return (Verdict::Undecided, Some(words.to_owned()));
    }
    if comparison.ln_coverage >= SAMPLE_RATIO_THRESHOLD.ln() {
        let words = "feedback comes for one version more often than for the other, so that their means are not of the same cases";
        return (Verdict::Undecided, Some(words.to_owned()));
    }
    if let Some(words) = comparison.coverage.lack(name, &evidence.names) {
        return (Verdict::Undecided, Some(words));
    }
    let is_shown = comparison.ln_e_value(ln_threshold) >= ln_threshold && comparison.worse_by() > 0.0;
    match is_shown {
        true if comparison.worse_by() >= above => (Verdict::Fail, None),
        true => {
            let words = "the challenger is worse than the champion, by less than the limit";
            (Verdict::Pass, Some(words.to_owned()))
        }
        false => (Verdict::Pass, None),
    }
}

#[cfg(test)]
mod tests;
