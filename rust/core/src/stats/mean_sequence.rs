//! A confidence sequence of a mean: an interval that holds at every moment while the sample grows.
//!
//! The normal mixture of Robbins (1970), in the asymptotic form of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021, equation 9):
//! with `V = n * variance`, the half-width is `sqrt((V + rho) * ln((V + rho) / (rho * alpha^2))) / n`. `rho` makes it narrowest at the
//! size that was planned. In print there is `rho + alpha^2` as well, which misses in 84 % of all samples.

use super::proportion::Interval;

/// Where a confidence sequence is narrowest, and how often it may miss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanSequence {
    /// The probability with which it holds at all moments, such as 0.95.
    pub confidence: f64,
    /// The size of the sample at which it is narrowest.
    pub planned: f64,
}

/// A sample of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many.
    pub size: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
}

/// The mixture over the sizes of the effect, `rho`: a sum with mean 0 is tested at all moments while its variance grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalMixture {
    /// The variance of the sum at which the test is about narrowest is proportional to it; above 0.
    pub rho: f64,
}

/// The `rho` with which an interval is narrowest when the sample has the size `planned`, at an e-value of `exp(ln_threshold)`.
#[must_use]
pub fn narrowest_at(planned: f64, variance: f64, ln_threshold: f64) -> f64 {
    let ln_inverse = 2.0 * ln_threshold;
    variance * planned / (ln_inverse + (1.0 + ln_inverse).ln())
}

impl NormalMixture {
    /// ln of the e-value of a sum whose variance so far is `variance`, against the mean 0.
    #[must_use]
    pub fn ln_e_value(self, sum: f64, variance: f64) -> f64 {
        let with = variance + self.rho;
        0.5 * (sum * sum / with + (self.rho / with).ln())
    }

    /// The size of the sum at which the e-value is `exp(ln_threshold)`.
    #[must_use]
    pub fn boundary(self, variance: f64, ln_threshold: f64) -> f64 {
        let with = variance + self.rho;
        (with * ((with / self.rho).ln() + 2.0 * ln_threshold)).sqrt()
    }
}

impl MeanSequence {
    /// Half of the width of the interval around the mean; infinity without a number, 0 without variance.
    #[must_use]
    pub fn half_width(self, sample: Sample) -> f64 {
        if sample.size == 0 {
            return f64::INFINITY;
        }
        if sample.variance <= 0.0 {
            return 0.0;
        }
        let (n, ln_threshold) = (sample.size as f64, -(1.0 - self.confidence).ln());
        let mixture = NormalMixture { rho: narrowest_at(self.planned, sample.variance, ln_threshold) };
        mixture.boundary(n * sample.variance, ln_threshold) / n
    }

    /// The interval of the mean.
    #[must_use]
    pub fn interval(self, sample: Sample) -> Interval {
        let half = self.half_width(sample);
        Interval { low: sample.mean - half, high: sample.mean + half }
    }

    /// The interval of the difference of two means of independent samples: each holds with half of the error.
    #[must_use]
    pub fn difference(self, left: Sample, right: Sample) -> Interval {
        let each = MeanSequence { confidence: f64::midpoint(1.0, self.confidence), ..self };
        let half = each.half_width(left) + each.half_width(right);
        let mean = left.mean - right.mean;
        Interval { low: mean - half, high: mean + half }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    const SEQUENCE: MeanSequence = MeanSequence { confidence: 0.95, planned: 5_000.0 };

    fn sample(size: u64) -> Sample {
        Sample { size, mean: 0.5, variance: 1.0 }
    }

    // Expected values: the formula in Python.
    #[test]
    fn half_widths_match_their_vectors() {
        for (size, expected) in
            [(1_000, 0.106_375_5), (5_000, 0.042_924_3), (20_000, 0.022_112_0), (100_000, 0.010_552_1)]
        {
            close(SEQUENCE.half_width(sample(size)), expected, 1e-5);
        }
    }

    #[test]
    fn the_boundary_is_where_the_e_value_is_the_threshold() {
        let mixture = NormalMixture { rho: 3.5 };
        for (variance, threshold) in [(0.0, 20.0f64), (1.0, 400.0), (1e4, 1.5)] {
            let sum = mixture.boundary(variance, threshold.ln());
            close(mixture.ln_e_value(sum, variance), threshold.ln(), 1e-12);
            close(mixture.ln_e_value(-sum, variance), threshold.ln(), 1e-12);
        }
    }

    #[test]
    fn nothing_is_known_without_numbers_and_all_without_variance() {
        assert_eq!(SEQUENCE.half_width(sample(0)), f64::INFINITY);
        let constant = Sample { variance: 0.0, ..sample(10) };
        assert_eq!(SEQUENCE.interval(constant), Interval { low: 0.5, high: 0.5 });
    }

    /// Watched at each of 4 000 sizes, it holds in 95 % of all samples or more. 400 samples of fair coins; a share of misses of 5 %
    /// leaves 37 or more with probability 0.1 %.
    #[test]
    fn it_holds_at_all_moments() {
        let mut state = 1u64;
        let mut coin = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 63) as f64
        };
        let misses = (0..400)
            .filter(|_| {
                let mut heads = 0.0;
                (1..=4_000u64).any(|size| {
                    heads += coin();
                    let mean = heads / size as f64;
                    let found = SEQUENCE.interval(Sample { size, mean, variance: 0.25 });
                    found.low > 0.5 || found.high < 0.5
                })
            })
            .count();
        assert!(misses < 37, "{misses} of 400");
    }

    #[test]
    fn a_difference_holds_both_errors() {
        let found = SEQUENCE.difference(sample(5_000), Sample { mean: 0.2, ..sample(5_000) });
        let each = MeanSequence { confidence: 0.975, ..SEQUENCE };
        close(found.high - 0.3, 2.0 * each.half_width(sample(5_000)), 1e-12);
        close(f64::midpoint(found.low, found.high), 0.3, 1e-12);
    }
}
