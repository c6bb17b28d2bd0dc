//! The beta distribution, and the binomial tails that it gives.

use libm::lgamma;

/// ln B(a, b) for a, b > 0.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// P(X <= x) for X ~ Beta(a, b): the regularized incomplete beta function I_x(a, b), for a, b > 0.
#[must_use]
pub fn cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast left of the mean; the other side is reached by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) { lower_tail(x, a, b) } else { 1.0 - lower_tail(1.0 - x, b, a) }
}

/// P(X > x) for X ~ Beta(a, b), accurate where it is small.
#[must_use]
pub fn survival(x: f64, a: f64, b: f64) -> f64 {
    cdf(1.0 - x, b, a)
}

/// The x with P(X <= x) = `p` for X ~ Beta(a, b), to the last digits of x.
#[must_use]
pub fn quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..MAX_HALVINGS {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if cdf(middle, a, b) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// P(K >= k) for K ~ Binomial(n, p).
#[must_use]
pub fn binomial_at_least(k: u64, n: u64, p: f64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    cdf(p, k as f64, (n - k) as f64 + 1.0)
}

/// P(K <= k) for K ~ Binomial(n, p).
#[must_use]
pub fn binomial_at_most(k: u64, n: u64, p: f64) -> f64 {
    if k >= n { 1.0 } else { survival(p, k as f64 + 1.0, (n - k) as f64) }
}

/// Halvings until an interval of [0, 1] holds no number between its ends, even next to zero.
const MAX_HALVINGS: usize = 1_100;

/// I_x(a, b) by its continued fraction (DLMF 8.17.22), evaluated with Lentz's method.
fn lower_tail(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const MAX_TERMS: usize = 1_000_000;
    let guard = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..MAX_TERMS {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    let ln_front = a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b);
    (ln_front.exp() * fraction / a).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    // Expected values: scipy 1.17 (beta.cdf, beta.sf, beta.ppf, binom).
    #[test]
    fn the_distribution_matches_scipy() {
        for (x, a, b, below, above) in [
            (0.1, 22.0, 91.0, 0.00155264111489994, 0.9984473588851001),
            (0.5, 0.5, 0.5, 0.5000000000000001, 0.5),
            (0.2, 2000.5, 8000.5, 0.4990025738679354, 0.5009974261320639),
            (0.999, 1e-2, 3.0, 0.9999999999966139, 3.3860142501623387e-12),
            (1e-6, 1.0, 1e5, 0.09516262720594036, 0.9048373727940596),
        ] {
            close(cdf(x, a, b), below, 1e-10);
            close(survival(x, a, b), above, 1e-10);
        }
    }

    proptest! {
        #[test]
        fn quantiles_invert_the_distribution(p in 1e-6..1.0 - 1e-6, a in 0.5..5000.0, b in 0.5..5000.0) {
            prop_assert!((cdf(quantile(p, a, b), a, b) - p).abs() < 1e-9);
        }

        #[test]
        fn the_binomial_tails_meet(n in 1_u64..5000, share in 0.0..1.0, p in 0.0..1.0) {
            let k = (share * n as f64) as u64;
            prop_assert!((binomial_at_least(k + 1, n, p) + binomial_at_most(k, n, p) - 1.0).abs() < 1e-9);
        }
    }
}
