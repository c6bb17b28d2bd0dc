//! Student's t distribution.

use super::beta;

/// The t with P(T <= t) = `p` for Student's T with `freedom` degrees of freedom, for 0 < p < 1.
#[must_use]
pub fn quantile(p: f64, freedom: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p, freedom);
    }
    // P(|T| > t) = I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2).
    let x = beta::quantile(2.0 * p, freedom / 2.0, 0.5);
    -(freedom * (1.0 - x) / x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    // Expected values: scipy 1.17 (t.ppf).
    #[test]
    fn quantiles_match_scipy() {
        close(quantile(0.975, 19.0), 2.093_024_054_408_308_7, 1e-9);
        close(quantile(0.975, 9.0), 2.262_157_162_798_205, 1e-9);
        close(quantile(0.995, 19.0), 2.860_934_606_464_979_4, 1e-9);
        close(quantile(0.1, 3.0), -1.637_744_353_696_209, 1e-9);
        close(quantile(0.5, 4.0), 0.0, 1e-6);
    }
}
