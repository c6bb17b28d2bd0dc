//! How many values were given, their sum, and the sum of their squares.

use serde::{Deserialize, Serialize};

/// Sums of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// How many.
    pub n: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
}

impl Moments {
    /// Adds a value.
    pub fn add_one(&mut self, value: f64) {
        self.add(Moments { n: 1, sum: value, squares: value * value });
    }

    /// Adds others.
    pub fn add(&mut self, other: Moments) {
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean, if there is a value.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    /// The sum of the squared distances from the mean, never below 0.
    pub fn squared_distances(&self) -> f64 {
        self.mean().map_or(0.0, |mean| (self.squares - mean * self.sum).max(0.0))
    }

    /// Whether a stored state may be this: finite, and no sum without a value.
    pub fn is_sound(&self) -> bool {
        self.sum.is_finite() && self.squares.is_finite() && (self.n > 0 || self.sum == 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_give_mean_and_spread() {
        let mut moments = Moments::default();
        assert_eq!((moments.mean(), moments.squared_distances()), (None, 0.0));
        [1.0, 2.0, 6.0].into_iter().for_each(|value| moments.add_one(value));
        assert_eq!((moments.mean(), moments.squared_distances()), (Some(3.0), 14.0));
        assert!(moments.is_sound() && !Moments { sum: f64::NAN, ..moments }.is_sound());
        assert!(!Moments { n: 0, ..moments }.is_sound());
    }
}
