//! Whether one of two things is slower, from few measured values of each: exact tests.

use super::proportion::Interval;

/// The most pairs: all ways to turn their signs are tried.
pub const MAX_PAIRS: usize = 22;

/// The exact sign-flip test of paired differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignFlip {
    /// The mean difference.
    pub mean: f64,
    /// The two-sided p-value: the share of the ways to turn signs whose sum is as far from zero.
    pub p: f64,
    /// All mean differences that the test does not reject; infinite ends if there are too few pairs to reject any.
    pub interval: Interval,
}

/// The sign-flip test (Fisher 1935) of differences that are symmetric around their mean, and its interval at the
/// confidence 1 - `alpha` by inversion. `None` without pairs or with more than [`MAX_PAIRS`].
///
/// For ratios, differences are logarithms, and the ends of the interval are those of the logarithm of the ratio.
#[must_use]
pub fn sign_flip(differences: &[f64], alpha: f64) -> Option<SignFlip> {
    let n = differences.len();
    if n == 0 || n > MAX_PAIRS {
        return None;
    }
    let ways = 1_usize << n;
    let total: f64 = differences.iter().sum();
    // The sum of each subset, each made from that without its lowest member.
    let mut sums = vec![0.0_f64; ways];
    for set in 1..ways {
        sums[set] = sums[set & (set - 1)] + differences[set.trailing_zeros() as usize];
    }
    // Sums that are equal but for rounding count as equal.
    let slack = 1e-12 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let as_far = sums.iter().filter(|turned| (total - 2.0 * **turned).abs() >= total.abs() - slack).count();
    let mut means: Vec<f64> = (1..ways).map(|set| sums[set] / f64::from((set as u32).count_ones())).collect();
    // If the true mean is d, turning the signs of a subset gives at least the observed sum if the subset's mean is at most
    // d. So the test rejects d until d has passed this many of the subsets' means.
    let rank = (alpha * ways as f64 / 2.0).floor() as usize;
    let interval = if rank == 0 {
        Interval { low: f64::NEG_INFINITY, high: f64::INFINITY }
    } else {
        let count = means.len();
        let low = *means.select_nth_unstable_by(rank - 1, f64::total_cmp).1;
        let high = *means.select_nth_unstable_by(count - rank, f64::total_cmp).1;
        Interval { low, high }
    };
    Some(SignFlip { mean: total / n as f64, p: as_far as f64 / ways as f64, interval })
}

/// The test of Mann and Whitney of two unpaired samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// Pairs in which the first sample's value is the greater, ties as halves.
    pub u: f64,
    /// The two-sided p-value: twice the smaller tail, at most 1.
    pub p: f64,
    /// Whether `p` is exact; else it is the normal approximation.
    pub exact: bool,
}

/// The most values of both samples that the exact distribution is computed for.
const MAX_EXACT: usize = 80;

/// Whether one sample tends to greater values (Mann and Whitney 1947). Exact, given the ties, up to 80 values; above,
/// the normal approximation with the corrections for ties and continuity. `None` if a sample is empty.
#[must_use]
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Option<MannWhitney> {
    let (m, n) = (first.len(), first.len() + second.len());
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let mut sorted: Vec<f64> = first.iter().chain(second).copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let ranks = doubled_ranks(&sorted);
    let rank_of = |value: &f64| ranks[sorted.partition_point(|other| other < value).min(n - 1)];
    let sum: usize = first.iter().map(rank_of).sum();
    let u = (sum - m * (m + 1)) as f64 / 2.0;
    if n > MAX_EXACT {
        return Some(MannWhitney { u, p: approximate_p(u, m, &sorted), exact: false });
    }
    // ways[k][s]: the share of the subsets of k values that have the doubled rank sum s.
    let most: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0_f64; most + 1]; m + 1];
    ways[0][0] = 1.0;
    for (seen, &rank) in ranks.iter().enumerate() {
        for k in (1..=m.min(seen + 1)).rev() {
            let (below, at) = ways.split_at_mut(k);
            let (smaller, larger) = (&below[k - 1], &mut at[0]);
            for s in (rank..=most).rev() {
                larger[s] += smaller[s - rank];
            }
        }
    }
    let all: f64 = ways[m].iter().sum();
    let lower: f64 = ways[m][..=sum].iter().sum();
    let upper: f64 = ways[m][sum..].iter().sum();
    Some(MannWhitney { u, p: (2.0 * lower.min(upper) / all).min(1.0), exact: true })
}

/// Twice the rank of each sorted value, the mean rank for ties: a whole number.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tied in sorted.chunk_by(|a, b| a == b) {
        let first = ranks.len() + 1;
        ranks.extend(std::iter::repeat_n(2 * first + tied.len() - 1, tied.len()));
    }
    ranks
}

fn approximate_p(u: f64, m: usize, sorted: &[f64]) -> f64 {
    let (count, first) = (sorted.len() as f64, m as f64);
    let second = count - first;
    let ties: f64 =
        sorted.chunk_by(|a, b| a == b).map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64).sum();
    let variance = first * second / 12.0 * (count + 1.0 - ties / (count * (count - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - first * second / 2.0).abs() - 0.5).max(0.0);
    (2.0 * super::normal::cdf(-distance / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    // Expected values: enumerated in Python.
    #[test]
    fn the_sign_flip_test_matches_its_vector() {
        let ratios = [1.031_f64, 1.018, 1.044, 0.996, 1.027, 1.039, 1.012, 1.025];
        let found = sign_flip(&ratios.map(f64::ln), 0.05).unwrap();
        close(found.mean.exp(), 1.023_898_911_205_303_6, 1e-12);
        assert_eq!(found.p, 4.0 / 256.0);
        close(found.interval.low.exp(), 1.010_930_358_633_511_7, 1e-12);
        close(found.interval.high.exp(), 1.036_642_070_298_419_8, 1e-12);
    }

    #[test]
    fn five_pairs_cannot_show_anything_at_five_percent() {
        let five = sign_flip(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.05).unwrap();
        assert_eq!(
            (five.p, five.interval.low, five.interval.high),
            (2.0 / 32.0, f64::NEG_INFINITY, f64::INFINITY)
        );
        assert_eq!(sign_flip(&[1.0; 6], 0.05).unwrap().p, 2.0 / 64.0);
        assert_eq!(sign_flip(&[0.0; 7], 0.05).unwrap().p, 1.0);
        assert_eq!((sign_flip(&[], 0.05), sign_flip(&[1.0; 23], 0.05)), (None, None));
    }

    // Expected values: scipy 1.17 (mannwhitneyu) and, with ties, all permutations.
    #[test]
    fn the_unpaired_test_matches_its_vectors() {
        let found =
            mann_whitney(&[10.1, 10.35, 9.9, 10.2, 10.0, 10.3], &[10.5, 10.6, 10.25, 10.9, 10.4, 10.7])
                .unwrap();
        assert_eq!((found.u, found.exact), (2.0, true));
        close(found.p, 0.008_658_008_658_008_658, 1e-12);
        let (left, right) = ([1.0, 2.0, 2.0, 3.0, 5.0], [2.0, 4.0, 4.0, 6.0, 7.0, 8.0]);
        let tied = mann_whitney(&left, &right).unwrap();
        assert_eq!(tied.u, 5.0);
        close(tied.p, 0.077_922_077_922_077_92, 1e-12);
        let mut sorted = [left.as_slice(), right.as_slice()].concat();
        sorted.sort_unstable_by(f64::total_cmp);
        close(approximate_p(5.0, 5, &sorted), 0.079_343_683_197_715_02, 1e-9);
        assert_eq!(mann_whitney(&[], &[1.0]), None);
        assert_eq!(mann_whitney(&[3.0; 50], &[3.0; 50]).unwrap().p, 1.0);
    }

    proptest! {
        /// The interval is what the test does not reject.
        #[test]
        fn the_interval_inverts_the_test(differences in prop::collection::vec(-5.0..5.0, 6..11)) {
            let found = sign_flip(&differences, 0.05).unwrap();
            let p_at = |mean: f64| {
                let moved: Vec<f64> = differences.iter().map(|difference| difference - mean).collect();
                sign_flip(&moved, 0.05).unwrap().p
            };
            let Interval { low, high } = found.interval;
            prop_assert!(low <= found.mean && found.mean <= high);
            let step = 1e-7;
            prop_assert!(p_at(low - step) <= 0.05 && p_at(low + step) > 0.05);
            prop_assert!(p_at(high + step) <= 0.05 && p_at(high - step) > 0.05);
        }

        #[test]
        fn samples_change_places(first in prop::collection::vec(0_i32..9, 1..9), second in prop::collection::vec(0_i32..9, 1..9)) {
            let of = |values: &[i32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
            let (there, back) = (mann_whitney(&of(&first), &of(&second)).unwrap(), mann_whitney(&of(&second), &of(&first)).unwrap());
            prop_assert!((there.p - back.p).abs() < 1e-12 && there.p > 0.0 && there.p <= 1.0);
            prop_assert_eq!(there.u + back.u, (first.len() * second.len()) as f64);
        }
    }
}
