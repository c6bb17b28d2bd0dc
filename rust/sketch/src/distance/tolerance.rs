//! The test of a verdict: is the change larger than the tolerated one?
//!
//! A threshold on PSI alone alarms on noise if there are few rows, and misses changes if there are many. Here `T = N_e * PSI` with
//! `N_e = n m / (n + m)` is compared with a non-central chi-square with `B - 1` degrees of freedom and
//! `lambda = N_e * tolerated PSI` (the population resemblance statistic, arXiv 2307.11878). So the share of false alarms is the
//! chosen one at any traffic volume. Not here: the figures shown beside the verdict (`report`). Next: `typed_slice`.

use super::counts::{Count, total};
use super::divergence::psi;
use crate::special::{noncentral_chi2_isf, noncentral_chi2_sf};

/// The most groups of a test. Bins nest, so that grouping them is exact.
const MAX_GROUPS: usize = 32;
/// Rows that each group should have on either side, so that the chi-square approximation holds.
const ROWS_PER_GROUP: u64 = 5;

/// The tolerated change, and the probability of a false alarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The population stability index (nats) up to which a change is tolerated; at least 0.
    pub psi: f64,
    /// The probability of a false alarm in one test of one feature, in (0, 1).
    pub alpha: f64,
    /// With fewer rows on either side the verdict is undecided.
    pub min_rows: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { psi: 0.02, alpha: 1e-4, min_rows: 100 }
    }
}

/// The verdict of a comparison. Without data it is undecided, never pass or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No evidence of a change beyond the tolerated one.
    Pass,
    /// The change exceeds the tolerated one.
    Fail,
    /// Too few rows.
    Undecided,
}

/// A verdict with its evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// `N_e * PSI` over the groups. NaN if undecided.
    pub stat: f64,
    /// The largest statistic that passes. NaN if undecided.
    pub critical: f64,
    /// The probability of a larger statistic if the change were exactly the tolerated one. NaN if undecided.
    pub p: f64,
    /// Degrees of freedom: groups less one.
    pub dof: u32,
}

impl Decision {
    const UNDECIDED: Self =
        Self { verdict: Verdict::Undecided, stat: f64::NAN, critical: f64::NAN, p: f64::NAN, dof: 0 };
}

/// Tests live counts `d` against reference counts `c`. The slots in `ordered` are neighbours and may be grouped: the bins between
/// "below" and "above". Each other slot is a group. If rows have weights, `d` must be counts of effective rows, on whose total the
/// test depends.
pub fn decide<C: Count>(
    c: &[u64],
    d: &[C],
    ordered: std::ops::Range<usize>,
    tolerance: &Tolerance,
) -> Decision {
    // A sum of products may be below a whole number by its last digits.
    let rows = (total(c).min(total(d)) + 1e-6) as u64;
    if rows < tolerance.min_rows.max(2 * ROWS_PER_GROUP) {
        return Decision::UNDECIDED;
    }
    let groups = usize::try_from(rows / ROWS_PER_GROUP).unwrap_or(MAX_GROUPS).min(MAX_GROUPS);
    let (c, d) = group(c, d, ordered, groups);
    let effective = total(&c) * total(&d) / (total(&c) + total(&d));
    // With one group, in which both sides have all values, nothing can differ.
    let dof = c.len().saturating_sub(1) as u32;
    if dof == 0 {
        return Decision { verdict: Verdict::Pass, stat: 0.0, critical: 0.0, p: 1.0, dof };
    }
    let (stat, lambda) = (effective * psi(&c, &d), effective * tolerance.psi.max(0.0));
    let p = noncentral_chi2_sf(stat, f64::from(dof), lambda);
    let verdict = if p < tolerance.alpha { Verdict::Fail } else { Verdict::Pass };
    Decision { verdict, stat, critical: noncentral_chi2_isf(tolerance.alpha, f64::from(dof), lambda), p, dof }
}

/// Joins neighbouring slots until each group has its share of the reference. Groups that are empty on both sides are dropped.
fn group<C: Count>(
    c: &[u64],
    d: &[C],
    ordered: std::ops::Range<usize>,
    groups: usize,
) -> (Vec<u64>, Vec<f64>) {
    let target = c[ordered.clone()].iter().sum::<u64>().div_ceil(groups as u64).max(1);
    let (mut grouped_c, mut grouped_d) = (Vec::new(), Vec::new());
    let mut push = |c: u64, d: f64| {
        if c > 0 || d > 0.0 {
            grouped_c.push(c);
            grouped_d.push(d);
        }
    };
    let (mut sum_c, mut sum_d) = (0, 0.0);
    for i in ordered.clone() {
        sum_c += c[i];
        sum_d += d[i].value();
        if sum_c >= target {
            push(sum_c, sum_d);
            (sum_c, sum_d) = (0, 0.0);
        }
    }
    push(sum_c, sum_d);
    for i in (0..c.len()).filter(|i| !ordered.contains(i)) {
        push(c[i], d[i].value());
    }
    (grouped_c, grouped_d)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic stream of uniform numbers.
    struct Stream(u64);

    impl Stream {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(1);
            (crate::sampler::splitmix64(self.0) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// `rows` values in 66 slots: 64 of equal probability, then a share `moved` from the lower to the upper half.
        fn counts(&mut self, rows: u64, moved: f64) -> Vec<u64> {
            let mut counts = vec![0; 66];
            for _ in 0..rows {
                let u = self.next();
                let slot = (u * 64.0) as usize;
                let shifted = if slot < 32 && self.next() < moved { slot + 32 } else { slot };
                counts[1 + shifted] += 1;
            }
            counts
        }
    }

    fn alarms(rows: u64, moved: f64, tolerance: &Tolerance) -> usize {
        let mut stream = Stream(rows);
        let reference = stream.counts(20_000, 0.0);
        let fails =
            |_| decide(&reference, &stream.counts(rows, moved), 1..65, tolerance).verdict == Verdict::Fail;
        (0..400).map(fails).filter(|&fail| fail).count()
    }

    #[test]
    fn false_alarms_are_as_rare_as_asked_for() {
        let tolerance = Tolerance { psi: 0.0, alpha: 0.05, min_rows: 100 };
        for rows in [100, 500, 5000] {
            let found = alarms(rows, 0.0, &tolerance);
            // 20 of 400 expected; 0.1 % of all streams fall outside 5..=40.
            assert!((5..=40).contains(&found), "{rows} rows: {found} of 400");
        }
        assert_eq!(alarms(2000, 0.0, &Tolerance::default()), 0);
    }

    #[test]
    fn large_changes_fail_and_tolerated_ones_do_not() {
        let tolerance = Tolerance::default();
        assert!(alarms(5000, 0.3, &tolerance) > 390);
        // PSI of this change: 2 * 0.025 * ln(0.525 / 0.475) = 0.005, below the tolerated 0.02 at any volume.
        assert_eq!(alarms(20_000, 0.05, &tolerance), 0);
    }

    #[test]
    fn too_few_rows_decide_nothing() {
        let c = vec![1000, 1000];
        for d in [vec![0, 0], vec![0, 99]] {
            assert_eq!(decide(&c, &d, 0..2, &Tolerance::default()).verdict, Verdict::Undecided);
            assert_eq!(decide(&d, &c, 0..2, &Tolerance::default()).verdict, Verdict::Undecided);
        }
        assert_eq!(decide(&c, &[0, 100], 0..2, &Tolerance::default()).verdict, Verdict::Fail);
        assert_eq!(decide(&[500, 0], &[500, 0], 0..2, &Tolerance::default()).verdict, Verdict::Pass);
    }
}
