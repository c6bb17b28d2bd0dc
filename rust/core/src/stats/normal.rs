//! The standard normal distribution.

use std::f64::consts::{PI, SQRT_2};

/// P(Z <= z) for a standard normal Z.
#[must_use]
pub fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// The z with P(Z <= z) = `p`; minus and plus infinity at 0 and 1, NaN outside of [0, 1].
///
/// The rational approximation of Acklam (relative error 1.2e-9) with one step of Halley's method on top, which leaves
/// the error of `erfc` alone.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if p > 0.5 {
        // The lower tail keeps its digits, the upper one is 1 minus something.
        return -quantile(1.0 - p);
    }
    let z = approximate_lower(p);
    let error = (cdf(z) - p) * (2.0 * PI).sqrt() * (z * z / 2.0).exp();
    z - error / (1.0 + z * error / 2.0)
}

/// Acklam's approximation for 0 < p <= 0.5.
fn approximate_lower(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        return polynomial(&C, q) / polynomial(&D, q);
    }
    let q = p - 0.5;
    let r = q * q;
    q * polynomial(&A, r) / polynomial(&B, r)
}

/// The polynomial with these coefficients, the highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    // Expected values: scipy 1.17 (norm.cdf, norm.ppf).
    #[test]
    fn the_distribution_and_its_quantiles_match_scipy() {
        for (p, z) in [
            (0.975, 1.959963984540054),
            (0.5, 0.0),
            (0.01, -2.3263478740408408),
            (1e-10, -6.361340902404056),
            (0.3, -0.5244005127080409),
            (0.999, 3.090232306167813),
        ] {
            close(quantile(p), z, 1e-12);
            close(cdf(z), p, 1e-12);
        }
    }

    #[test]
    fn the_ends_are_infinite_and_no_probability_is_no_number() {
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(quantile(-0.1).is_nan() && quantile(1.1).is_nan() && quantile(f64::NAN).is_nan());
    }
}
