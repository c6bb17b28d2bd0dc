//! How far two versions agree that answered the same requests.

use super::beta;
use super::proportion::{Interval, Share, difference};

/// Pairs of answers that were compared, and pairs that would have been compared but were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Compared pairs.
    pub compared: u64,
    /// Compared pairs whose answers differ.
    pub differing: u64,
    /// Pairs that were drawn and never compared.
    pub dropped: u64,
}

impl Pairs {
    /// The share of differing pairs among those compared.
    #[must_use]
    pub fn disagreement(self) -> Share {
        Share { events: self.differing, total: self.compared }
    }

    /// The least and the greatest share of differing pairs among those drawn: dropped pairs may all agree, or none.
    /// Drops come when the machine is busy, so they are no random part of the pairs.
    #[must_use]
    pub fn bounds(self) -> Interval {
        let drawn = (self.compared + self.dropped) as f64;
        if drawn == 0.0 {
            return Interval { low: 0.0, high: 1.0 };
        }
        Interval { low: self.differing as f64 / drawn, high: (self.differing + self.dropped) as f64 / drawn }
    }

    /// The share of drawn pairs that were dropped; 0 if none was drawn.
    #[must_use]
    pub fn drop_share(self) -> f64 {
        match self.compared + self.dropped {
            0 => 0.0,
            drawn => self.dropped as f64 / drawn as f64,
        }
    }

    /// What these pairs disagree more than a version does with itself (`floor`), at `confidence`.
    #[must_use]
    pub fn excess(self, floor: Pairs, confidence: f64) -> Interval {
        difference(self.disagreement(), floor.disagreement(), confidence)
    }
}

/// Cohen's kappa (1960) of a square table `counts[champion][challenger]`: 1 is full agreement, 0 what chance gives; NaN
/// for an empty table and where both always say the same one thing.
#[must_use]
pub fn kappa<const N: usize>(counts: &[[u64; N]; N]) -> f64 {
    let total: u64 = counts.iter().flatten().sum();
    let n = total as f64;
    let observed = (0..N).map(|i| counts[i][i] as f64).sum::<f64>() / n;
    let chance = (0..N)
        .map(|i| {
            let row: u64 = counts[i].iter().sum();
            let column: u64 = counts.iter().map(|row| row[i]).sum();
            row as f64 / n * (column as f64 / n)
        })
        .sum::<f64>();
    (observed - chance) / (1.0 - chance)
}

/// The exact two-sided p-value of McNemar (1947): of the pairs that differ, `one_way` went one way and `other_way` the
/// other; 1 without any.
#[must_use]
pub fn mcnemar(one_way: u64, other_way: u64) -> f64 {
    let total = one_way + other_way;
    (2.0 * beta::binomial_at_least(one_way.max(other_way), total, 0.5)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    // Expected values: scipy 1.17.
    #[test]
    fn kappa_and_direction_match_their_vectors() {
        close(kappa(&[[4_400, 60], [90, 450]]), 0.840_398_4, 1e-6);
        close(mcnemar(60, 90), 0.017_597_7, 1e-5);
        close(mcnemar(40, 68), 0.009_058_0, 1e-5);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(5, 5), 1.0);
    }

    #[test]
    fn dropped_pairs_widen_the_range() {
        let pairs = Pairs { compared: 900, differing: 18, dropped: 100 };
        assert_eq!(pairs.bounds(), Interval { low: 0.018, high: 0.118 });
        assert_eq!(pairs.drop_share(), 0.1);
        assert_eq!(Pairs::default().bounds(), Interval { low: 0.0, high: 1.0 });
        assert_eq!(Pairs::default().drop_share(), 0.0);
    }

    #[test]
    fn the_excess_is_over_what_a_version_differs_from_itself() {
        let pairs = Pairs { compared: 5_000, differing: 150, dropped: 0 };
        let found = pairs.excess(Pairs { compared: 5_000, differing: 12, dropped: 0 }, 0.95);
        close(found.low, 0.022_869, 1e-4);
        close(found.high, 0.032_803, 1e-4);
    }
}
