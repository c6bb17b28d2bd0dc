//! Two-sample tests on a 2 x B table. Both the reference and the live counts are samples.
//!
//! The results are those of `scipy.stats.chi2_contingency(correction=False)`. Next: `bounds`.

use super::counts::{Count, total};
use crate::special::chi2_sf;

/// A statistic with its p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestResult {
    /// The statistic.
    pub stat: f64,
    /// The probability of a larger statistic without a change (asymptotic).
    pub p: f64,
    /// Degrees of freedom: slots with a value on either side, less one.
    pub dof: u32,
}

/// Pearson's chi-square over all cells of both samples. `None` if a side is empty, or fewer than two slots are used.
pub fn chi_square<C: Count>(c: &[u64], d: &[C]) -> Option<TestResult> {
    contingency(c, d, |observed, expected| (observed - expected) * (observed - expected) / expected)
}

/// The G-test (log-likelihood ratio) over all cells of both samples. `None` as for [`chi_square`].
pub fn g_test<C: Count>(c: &[u64], d: &[C]) -> Option<TestResult> {
    contingency(c, d, |observed, expected| {
        // 2 (o ln(o/e) - (o - e)): the second part adds up to 0, and keeps the digits if o is near e.
        let u = (observed - expected) / expected;
        if observed <= 0.0 { 2.0 * expected } else { 2.0 * expected * ((1.0 + u) * u.ln_1p() - u) }
    })
}

fn contingency<C: Count>(c: &[u64], d: &[C], cell: impl Fn(f64, f64) -> f64) -> Option<TestResult> {
    debug_assert_eq!(c.len(), d.len(), "counts on different slots");
    let (n, m) = (total(c), total(d));
    let (mut stat, mut used) = (0.0, 0u32);
    let pairs = c.iter().zip(d).map(|(&c, &d)| (c as f64, d.value()));
    for (c, d) in pairs.filter(|&(c, d)| c > 0.0 || d > 0.0) {
        let column = c + d;
        stat += cell(c, column * n / (n + m)) + cell(d, column * m / (n + m));
        used += 1;
    }
    if used < 2 || n == 0.0 || m == 0.0 {
        return None;
    }
    let stat = stat.max(0.0);
    Some(TestResult { stat, p: chi2_sf(stat, f64::from(used - 1)), dof: used - 1 })
}
