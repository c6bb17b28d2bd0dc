//! How far the distributions of two arms are apart, watched without pause. Each value came from one of two arms, drawn with a known
//! probability, so that nothing is assumed about how values change with time.
//!
//! For a set `B` of values, a value `x` of arm `a` (1 with probability `w`, else 0) adds `z = (a - w) (1[x in B] - m)` to a sum, with
//! `m` fixed before. Given the past, its mean is `w (1 - w)` times the difference of the shares of `B` in the two arms. As `z >= -1`,
//!
//! ```text
//! exp(l (sum of z - limit * sum of w (1 - w)) - (-ln(1 - l) - l) * sum of z^2)          0 < l < 1
//! ```
//! is a supermartingale if no difference is above the limit (Fan, Grama and Liu 2015; Howard, Ramdas, McAuliffe and Sekhon 2021,
//! theorem 4), and so is the mean over several `l`, sets and both signs. It reaches a threshold `t` with probability `1/t` at most
//! (Ville 1939). That the arm is drawn is what makes the differences known (Ham, Bojinov, Lindon and Tingley 2022).

use serde::{Deserialize, Serialize};

/// The wagers `l`: small ones for differences that are just above the limit, large ones for great differences in few values.
const WAGERS: [f64; 10] = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.5, 0.7, 0.9];
/// Both signs of a difference.
const SIGNS: f64 = 2.0;

/// The sums over all values: of each bin, of all values up to it, and the information.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DifferenceSums {
    /// The sum of `w (1 - w)`.
    pub information: f64,
    /// For each bin the sum of `z`.
    pub sums: Vec<f64>,
    /// For each bin the sum of `z^2`.
    pub squares: Vec<f64>,
    /// For each bin but the last the sum of `z^2` of the values in it and below.
    pub squares_below: Vec<f64>,
}

/// The values of both arms that came with one probability.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// The probability of the second arm.
    pub weight: f64,
    /// The share of each bin that is expected; it must not depend on these values.
    pub expected: &'a [f64],
    /// The values of both arms by bin.
    pub counts: [&'a [u64]; 2],
}

/// The distance of two distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Kolmogorov-Smirnov: the greatest difference of the shares up to a value.
    Ks,
    /// Total variation: the greatest difference of the shares of any set.
    TotalVariation,
}

impl Distance {
    /// The name in questions and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Distance::Ks => "ks",
            Distance::TotalVariation => "total_variation",
        }
    }
}

/// The sum of one set.
#[derive(Clone, Copy, Debug)]
struct SetSum {
    sum: f64,
    squares: f64,
}

impl DifferenceSums {
    /// No values yet, in so many bins.
    pub fn new(bins: usize) -> DifferenceSums {
        DifferenceSums {
            information: 0.0,
            sums: vec![0.0; bins],
            squares: vec![0.0; bins],
            squares_below: vec![0.0; bins.saturating_sub(1)],
        }
    }

    /// Adds values. Nothing is learned from those of a probability of 0 or 1.
    pub fn add(&mut self, drawn: Drawn<'_>) {
        let Drawn { weight, expected, counts } = drawn;
        let totals = counts.map(|of_arm| of_arm.iter().sum::<u64>() as f64);
        if weight <= 0.0 || weight >= 1.0 || totals == [0.0; 2] {
            return;
        }
        self.information += weight * (1.0 - weight) * (totals[0] + totals[1]);
        let squares = |within: [f64; 2], share: f64| {
            let of_arm = |arm: usize, factor: f64| {
                let outside = totals[arm] - within[arm];
                factor * factor * (within[arm] * (1.0 - share) * (1.0 - share) + outside * share * share)
            };
            of_arm(0, weight) + of_arm(1, 1.0 - weight)
        };
        let (mut below, mut share_below) = ([0.0; 2], 0.0);
        for (bin, &share) in expected.iter().enumerate() {
            let within = counts.map(|of_arm| of_arm[bin] as f64);
            self.sums[bin] +=
                (1.0 - weight) * (within[1] - share * totals[1]) - weight * (within[0] - share * totals[0]);
            self.squares[bin] += squares(within, share);
            (0..2).for_each(|arm| below[arm] += within[arm]);
            share_below += share;
            if let Some(sum) = self.squares_below.get_mut(bin) {
                *sum += squares(below, share_below.min(1.0));
            }
        }
    }

    /// Adds the bins of two answers to one request, of the first arm and of the second one. Nothing is drawn here: the mean of a pair's `z`
    /// is the difference of the shares itself, and its information is 1.
    pub fn add_pair(&mut self, bins: [usize; 2]) {
        self.information += 1.0;
        let [first, second] = bins;
        if first == second {
            return;
        }
        self.sums[first] -= 1.0;
        self.sums[second] += 1.0;
        bins.into_iter().for_each(|bin| self.squares[bin] += 1.0);
        self.squares_below[first.min(second)..first.max(second)].iter_mut().for_each(|sum| *sum += 1.0);
    }

    /// The sets up to each bin but the last.
    fn below(&self) -> impl Iterator<Item = SetSum> {
        let sums = self.sums.iter().scan(0.0, |sum, of_bin| {
            *sum += of_bin;
            Some(*sum)
        });
        sums.zip(&self.squares_below).map(|(sum, &squares)| SetSum { sum, squares })
    }

    fn bins(&self) -> impl Iterator<Item = SetSum> {
        self.sums.iter().zip(&self.squares).map(|(&sum, &squares)| SetSum { sum, squares })
    }

    fn sets(&self, distance: Distance) -> Vec<SetSum> {
        match distance {
            Distance::Ks => self.below().collect(),
            Distance::TotalVariation => self.below().chain(self.bins()).collect(),
        }
    }

    /// The number of sets that are tested.
    pub fn set_count(&self, distance: Distance) -> usize {
        match distance {
            Distance::Ks => self.squares_below.len(),
            Distance::TotalVariation => self.squares_below.len() + self.sums.len(),
        }
    }

    /// The distance; NaN without information.
    pub fn estimate(&self, distance: Distance) -> f64 {
        let largest = match distance {
            Distance::Ks => self.below().map(|set| set.sum.abs()).fold(0.0, f64::max),
            Distance::TotalVariation => self.sums.iter().map(|sum| sum.abs()).sum::<f64>() / 2.0,
        };
        if self.information > 0.0 { (largest / self.information).min(1.0) } else { f64::NAN }
    }

    /// ln of the sum of the e-values of "the distance is at most `limit`" over all sets, signs and wagers.
    pub fn ln_wealth(&self, distance: Distance, limit: f64) -> f64 {
        let mut ln_sum = f64::NEG_INFINITY;
        for SetSum { sum, squares } in self.sets(distance) {
            for wager in WAGERS {
                let loss = penalty(wager) * squares + wager * limit * self.information;
                for won in [wager * sum - loss, -wager * sum - loss] {
                    ln_sum = ln_add(ln_sum, won);
                }
            }
        }
        ln_sum
    }

    /// The least and the greatest distance that the values do not contradict, if each of `sets` sets in all may contradict the truth with
    /// an equal part of `alpha`; `[0, 1]` without information.
    pub fn interval(&self, distance: Distance, (sets, alpha): (usize, f64)) -> (f64, f64) {
        let ln_needed = ln_parts(sets) - alpha.ln();
        let bounds = |set: &SetSum| {
            let (size, radius) = (set.sum.abs() / self.information, radius(set.squares, ln_needed));
            (size - radius / self.information, size + radius / self.information)
        };
        if self.information <= 0.0 {
            return (0.0, 1.0);
        }
        let sets = self.sets(distance);
        let least = sets.iter().map(|set| bounds(set).0).fold(0.0, f64::max);
        let (low, high) = match distance {
            Distance::Ks => (least, sets.iter().map(|set| bounds(set).1).fold(0.0, f64::max)),
            Distance::TotalVariation => {
                let sure = |sign: f64| {
                    let sure =
                        self.bins().filter(|bin| bin.sum * sign > 0.0).map(|bin| bounds(&bin).0.max(0.0));
                    sure.sum::<f64>()
                };
                let most = self.bins().map(|bin| bounds(&bin).1).sum::<f64>() / 2.0;
                (least.max(sure(1.0)).max(sure(-1.0)), most)
            }
        };
        (low.min(1.0), high.min(1.0))
    }

    /// The greatest sum of squares of a set.
    fn greatest_squares(&self, distance: Distance) -> f64 {
        self.sets(distance).iter().map(|set| set.squares).fold(0.0, f64::max)
    }

    /// How far beyond the limit a distance must be for so many values to show it with the probability whose normal quantile is `quantile`.
    pub fn detectable_beyond(
        &self,
        distance: Distance,
        (sets, ln_threshold): (usize, f64),
        quantile: f64,
    ) -> f64 {
        beyond(self.information, self.greatest_squares(distance), ln_parts(sets) + ln_threshold, quantile)
    }

    /// Whether it may be of so many bins.
    pub fn is_sound(&self, bins: usize) -> bool {
        let all = [&self.sums, &self.squares, &self.squares_below];
        self.sums.len() == bins
            && self.squares.len() == bins
            && self.squares_below.len() + 1 == bins
            && all.into_iter().flatten().chain([&self.information]).all(|number| number.is_finite())
            && self.information >= 0.0
            && self.squares.iter().chain(&self.squares_below).all(|&squares| squares >= 0.0)
    }
}

/// The mean e-value of all sets, from the sum over them.
pub fn ln_e_value(ln_wealth: f64, sets: usize) -> f64 {
    ln_wealth - ln_parts(sets)
}

/// How far beyond the limit a distance must be for `values` of the second arm, drawn with probability `weight`, to show it.
pub fn planned_beyond(values: f64, weight: f64, (sets, ln_threshold): (usize, f64), quantile: f64) -> f64 {
    // A set that half of the values are in has the greatest variance.
    let information = (1.0 - weight) * values;
    beyond(information, information / 4.0, ln_parts(sets) + ln_threshold, quantile)
}

fn beyond(information: f64, squares: f64, ln_needed: f64, quantile: f64) -> f64 {
    if information <= 0.0 {
        return f64::INFINITY;
    }
    (radius(squares, ln_needed) + quantile * squares.sqrt()) / information
}

/// ln of the parts of the wealth: each set has two signs and all wagers.
fn ln_parts(sets: usize) -> f64 {
    (sets.max(1) as f64 * SIGNS * WAGERS.len() as f64).ln()
}

/// How large a sum has to be to win `exp(ln_needed)` with the best wager.
fn radius(squares: f64, ln_needed: f64) -> f64 {
    let needed = WAGERS.map(|wager| (ln_needed + penalty(wager) * squares) / wager);
    needed.into_iter().fold(f64::INFINITY, f64::min)
}

fn penalty(wager: f64) -> f64 {
    -(-wager).ln_1p() - wager
}

/// ln of `exp(a) + exp(b)`.
pub fn ln_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests;
