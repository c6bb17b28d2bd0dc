//! Whether a rate holds a latency objective, decided while requests still come.
//!
//! The objective allows a share `a` of requests to be slower than the limit. The evidence for "pass" is the likelihood
//! of what was counted under a mixture of smaller shares, over its likelihood under `a`. It is at most 1 in the mean if
//! the true share is `a` or more, however often it is looked at, so that it reaches `1 / alpha` with probability `alpha`
//! at most (Ville 1939; mixtures: Robbins 1970). "Fail" mirrors it. The mixture is Beta(1, 1/a - 1), cut at `a`.
//!
//! That is proved for independent requests. Counts of correlated ones are divided by their inflation first, and by the
//! penalty for its estimate ([`with_penalty`]), which is a heuristic: `docs/design/bench-statistics.md` says how often it
//! decides wrongly, by simulation.

use super::beta;
use super::codes::{BATCHES, BatchCounts};
use super::normal;
use super::quantile::with_penalty;

/// The fewest requests that a verdict is given on: batches of fewer than 50 are shorter than the bursts of a queue.
pub const FIRST_LOOK: u64 = 50 * BATCHES as u64;
/// The evidence that is shown in place of more; no decision asks for so much.
const MOST_EVIDENCE: f64 = 1e15;

/// How many times likelier the counts are if the rate passes, and if it fails, than at the boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Evidence that fewer than the allowed share are slower.
    pub pass: f64,
    /// Evidence that more are.
    pub fail: f64,
}

/// The evidence in `slower` and `faster` requests, which need not be whole numbers, if a share `allowed` in (0, 1) may
/// be slower.
#[must_use]
pub fn evidence(slower: f64, faster: f64, allowed: f64) -> Evidence {
    let (a, b) = (1.0, 1.0 / allowed - 1.0);
    let (after_a, after_b) = (slower + a, faster + b);
    let ln_ratio = beta::ln_beta(after_a, after_b)
        - beta::ln_beta(a, b)
        - slower * allowed.ln()
        - faster * (-allowed).ln_1p();
    let of = |after: f64, before: f64| (ln_ratio + after.ln() - before.ln()).exp().min(MOST_EVIDENCE);
    Evidence {
        pass: of(beta::cdf(allowed, after_a, after_b), beta::cdf(allowed, a, b)),
        fail: of(beta::survival(allowed, after_a, after_b), beta::survival(allowed, a, b)),
    }
}

/// What is known of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds the objective.
    Pass,
    /// It does not.
    Fail,
    /// The requests so far do not tell.
    Undecided,
}

impl Verdict {
    /// Its name in results.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Undecided => "undecided",
        }
    }
}

/// An objective: at least a share `quantile` of requests has at most the code `limit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The share, such as 0.99.
    pub quantile: f64,
    /// The greatest code that is fast enough.
    pub limit: u16,
    /// The probability of a wrong verdict.
    pub alpha: f64,
}

/// A verdict and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The evidence; the verdict is given once one reaches `needed`.
    pub evidence: Evidence,
    /// 1 / alpha.
    pub needed: f64,
    /// The requests that were slower than the limit.
    pub slower: u64,
    /// All requests.
    pub requests: u64,
    /// What the counts were divided by: their inflation with its penalty; `None` with too few requests for batches.
    pub inflation: Option<f64>,
}

/// The verdict on an objective. It is undecided below [`FIRST_LOOK`] requests.
#[must_use]
pub fn judge(counts: &BatchCounts, objective: Objective) -> Judgement {
    let Objective { quantile, limit, alpha } = objective;
    let (requests, slower) = (counts.total(), counts.slower_than(limit));
    let inflation = counts.inflation(limit).map(|inflation| with_penalty(inflation, alpha));
    let scale = inflation.unwrap_or(1.0);
    let evidence = evidence(slower as f64 / scale, (requests - slower) as f64 / scale, 1.0 - quantile);
    let needed = 1.0 / alpha;
    let verdict = if requests < FIRST_LOOK {
        Verdict::Undecided
    } else if evidence.pass >= needed {
        Verdict::Pass
    } else if evidence.fail >= needed {
        Verdict::Fail
    } else {
        Verdict::Undecided
    };
    Judgement { verdict, evidence, needed, slower, requests, inflation }
}

/// MLPerf's early stopping: how many requests a run needs if `slower` of them were slower than the limit, so that the
/// share `quantile` holds with `confidence` (MLPerf inference rules, appendix "Early Stopping Criterion", with d = 0).
///
/// The rule is for one look after the run. Looking at it request by request passes falsely more often than it says.
#[must_use]
pub fn mlperf_requests(slower: u64, quantile: f64, confidence: f64) -> u64 {
    let enough = |faster: u64| beta::cdf(quantile, faster as f64, slower as f64 + 1.0) <= 1.0 - confidence;
    let mut high = 1;
    while !enough(high) {
        high *= 2;
    }
    let mut low = high / 2;
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    high + slower
}

/// MLPerf's number of requests that is fixed before the run: a margin of a twentieth of the tail at `confidence`, rounded
/// up to a multiple of 2^13; the number before and after the rounding.
#[must_use]
pub fn mlperf_fixed(quantile: f64, confidence: f64) -> (u64, u64) {
    const MULTIPLE: u64 = 1 << 13;
    let margin = (1.0 - quantile) / 20.0;
    let z = normal::quantile(1.0 - (1.0 - confidence) / 2.0);
    let exact = (z * z * quantile * (1.0 - quantile) / (margin * margin)).ceil() as u64;
    (exact, exact.div_ceil(MULTIPLE) * MULTIPLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::codes::SLOWER_THAN_ANY;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    // Expected values: scipy 1.17 (betainc, betaln).
    #[test]
    fn the_evidence_matches_its_vectors() {
        close(evidence(0.0, 600.0, 0.01).pass, 93.352_945_826_243_81, 1e-6);
        close(evidence(5.0, 1_302.0, 0.01).pass, 11.823_622_477_321_637, 1e-6);
        close(evidence(15.0, 500.0, 0.01).fail, 158.964_547_936_642_84, 1e-6);
        close(evidence(2.5, 100.25, 0.05).pass, 1.471_771_404_318_229_7, 1e-6);
        close(evidence(2.5, 10.25, 0.05).fail, 2.826_422_486_827_121_7, 1e-6);
        assert!(evidence(0.0, 416.0, 0.01).pass < 20.0 && evidence(0.0, 417.0, 0.01).pass >= 20.0);
        close(evidence(0.0, 0.0, 0.01).pass, 1.0, 1e-12);
        let sure = evidence(1e6, 1e6, 0.01);
        assert_eq!((sure.pass, sure.fail), (0.0, MOST_EVIDENCE));
    }

    /// With the true share at the boundary, the mean of the next evidence is the present one: it is a martingale.
    #[test]
    fn the_evidence_gains_nothing_at_the_boundary() {
        for (slower, faster) in [(0.0, 0.0), (3.0, 500.0), (12.0, 700.0)] {
            let now = evidence(slower, faster, 0.01);
            let (more, less) = (evidence(slower + 1.0, faster, 0.01), evidence(slower, faster + 1.0, 0.01));
            close(0.01 * more.pass + 0.99 * less.pass, now.pass, 1e-9);
            close(0.01 * more.fail + 0.99 * less.fail, now.fail, 1e-9);
        }
    }

    #[test]
    fn the_rule_of_mlperf_matches_its_vectors() {
        let needed = |p| [0, 1, 10].map(|slower| mlperf_requests(slower, p, 0.99));
        assert_eq!(needed(0.99), [459, 662, 2_010]);
        assert_eq!(needed(0.9), [44, 64, 197]);
        assert_eq!(mlperf_requests(1, 0.999, 0.99), 6_636);
        assert_eq!(mlperf_fixed(0.99, 0.99), (262_742, 270_336));
    }

    fn judged(slow: u16, among: usize, count: usize) -> Judgement {
        let codes: Vec<u16> = (0..count).map(|at| if at % among == 0 { slow } else { 3 }).collect();
        judge(&BatchCounts::of(&codes), Objective { quantile: 0.99, limit: 5, alpha: 0.05 })
    }

    #[test]
    fn a_rate_passes_fails_or_is_undecided() {
        let good = judged(9, 1_000, 4_000);
        assert_eq!((good.verdict, good.slower, good.requests, good.needed), (Verdict::Pass, 4, 4_000, 20.0));
        assert_eq!(judged(9, 10, 4_000).verdict, Verdict::Fail);
        assert_eq!(
            judged(SLOWER_THAN_ANY, 10, 4_000).verdict,
            Verdict::Fail,
            "no answer is slower than the limit"
        );
        assert_eq!(judged(9, 100, 4_000).verdict, Verdict::Undecided);
        let early = judged(9, 10, 900);
        assert_eq!(early.verdict, Verdict::Undecided, "too early, whatever the evidence");
        assert!(early.evidence.fail > early.needed);
        assert_eq!(judged(9, 10, 19).inflation, None);
    }

    #[test]
    fn a_burst_counts_for_less_than_as_many_slow_requests_apart() {
        let together: Vec<u16> =
            (0..4_000).map(|at| if (1_000..1_100).contains(&at) { 9 } else { 3 }).collect();
        let burst = judge(&BatchCounts::of(&together), Objective { quantile: 0.99, limit: 5, alpha: 0.05 });
        let apart = judged(9, 40, 4_000);
        assert_eq!((burst.slower, apart.slower), (100, 100));
        assert!(burst.inflation.unwrap() > 50.0 && apart.inflation.unwrap() < 1.5);
        assert_eq!((burst.verdict, apart.verdict), (Verdict::Undecided, Verdict::Fail));
    }

    proptest! {
        #[test]
        fn the_evidence_of_a_verdict_is_that_of_its_counts(
            codes in prop::collection::vec(0_u16..100, 20..600), limit in 0_u16..100, quantile in 0.5..0.999,
        ) {
            let found = judge(&BatchCounts::of(&codes), Objective { quantile, limit, alpha: 0.05 });
            let (slower, scale) = (codes.iter().filter(|&&code| code > limit).count() as f64, found.inflation.unwrap());
            let faster = codes.len() as f64 - slower;
            prop_assert_eq!(found.evidence, evidence(slower / scale, faster / scale, 1.0 - quantile));
        }

        /// Evidence is a function of the two counts, so that the order of requests within a batch changes nothing.
        #[test]
        fn the_order_within_batches_changes_nothing(batches in prop::collection::vec(prop::collection::vec(0_u16..100, 30), 20), limit in 0_u16..100) {
            let mixed: Vec<u16> = batches.iter().flat_map(|batch| batch.iter().rev().copied()).collect();
            let objective = Objective { quantile: 0.9, limit, alpha: 0.05 };
            prop_assert_eq!(judge(&BatchCounts::of(&batches.concat()), objective), judge(&BatchCounts::of(&mixed), objective));
        }
    }
}
