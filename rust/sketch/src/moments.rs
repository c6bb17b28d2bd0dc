//! Count, mean, variance, minimum and maximum of finite values. They can be merged.
//!
//! Not here: NaN and infinities (`live::NonFiniteCounts` counts those). Next: `categories`.

use serde::{Deserialize, Serialize};

/// Mergeable moments, in the unit of the values. Updates: Welford (1962). Merging: Chan, Golub and LeVeque (1979).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// The number of finite values.
    pub n: u64,
    /// Their mean; 0 if there are none.
    pub mean: f64,
    /// The sum of squared distances from the mean.
    pub m2: f64,
    /// The smallest value; +infinity if there are none.
    #[serde(with = "bound_low")]
    pub min: f64,
    /// The largest value; -infinity if there are none.
    #[serde(with = "bound_high")]
    pub max: f64,
}

/// Sums over values from which their moments follow.
#[derive(Clone, Copy, Debug)]
pub struct PowerSums {
    /// The number of values.
    pub n: u64,
    /// The sum of the values.
    pub sum: f64,
    /// The sum of `(value - centre)^2`.
    pub squares: f64,
    /// The centre of the squares.
    pub centre: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { n: 0, mean: 0.0, m2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Counts one finite value.
    pub fn record(&mut self, value: f64) {
        self.n += 1;
        let distance = value - self.mean;
        self.mean += distance / self.n as f64;
        self.m2 += distance * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Moments from power sums, exact up to rounding if the centre is near the mean.
    pub fn from_power_sums(sums: PowerSums) -> Self {
        let PowerSums { n, sum, squares, centre, min, max } = sums;
        if n == 0 {
            return Self::default();
        }
        let mean = sum / n as f64;
        let offset = mean - centre;
        let m2 = (squares - n as f64 * offset * offset).max(0.0);
        Self { n, mean, m2, min, max }
    }

    /// Adds the moments of other values.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * (b / (a + b));
        self.m2 += other.m2 + delta * delta * (a * b / (a + b));
        self.n += other.n;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The variance with denominator n, or `None` without values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 0).then(|| self.m2 / self.n as f64)
    }

    /// The standard deviation with denominator n, or `None` without values.
    pub fn std(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }
}

macro_rules! bound {
    ($module:ident, $empty:expr) => {
        /// JSON has no infinity: an empty bound is `null`.
        mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
                (*value != $empty).then_some(*value).serialize(serializer)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
                Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or($empty))
            }
        }
    };
}
bound!(bound_low, f64::INFINITY);
bound!(bound_high, f64::NEG_INFINITY);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_halves_equal_the_whole() {
        let values: Vec<f64> = (0..1000).map(|i| 1e6 + (f64::from(i) * 0.618).fract()).collect();
        let (mut whole, mut left, mut right) = (Moments::default(), Moments::default(), Moments::default());
        for (i, &value) in values.iter().enumerate() {
            whole.record(value);
            if i < 300 { left.record(value) } else { right.record(value) }
        }
        left.merge(&right);
        assert_eq!((left.n, left.min, left.max), (whole.n, whole.min, whole.max));
        assert!((left.mean - whole.mean).abs() < 1e-9);
        assert!((left.m2 - whole.m2).abs() < 1e-6);
        let squares: f64 = values.iter().map(|v| (v - 1e6) * (v - 1e6)).sum();
        let power = Moments::from_power_sums(PowerSums {
            n: 1000,
            sum: values.iter().sum(),
            squares,
            centre: 1e6,
            min: whole.min,
            max: whole.max,
        });
        assert!((power.m2 - whole.m2).abs() < 1e-5, "{} {}", power.m2, whole.m2);
    }

    #[test]
    fn empty_moments_survive_json() {
        let empty = Moments::default();
        let text = serde_json::to_string(&empty).unwrap();
        assert_eq!(text, r#"{"n":0,"mean":0.0,"m2":0.0,"min":null,"max":null}"#);
        assert_eq!(serde_json::from_str::<Moments>(&text).unwrap(), empty);
    }
}
