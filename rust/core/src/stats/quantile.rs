//! Intervals of quantiles that hold although requests are correlated.
//!
//! Requests that queue behind each other are slow together. An interval that takes them for independent is several times
//! too narrow. Here `n` requests count as `n / (V (t / z)^2)` independent ones: `V` is [`BatchCounts::inflation`], and
//! Student's `t` pays for estimating it from [`BATCHES`] batches. The ends are order statistics, whose ranks follow from
//! the binomial distribution exactly (Hahn and Meeker, Statistical Intervals, 1991, section 5.2).
//!
//! How often the intervals hold was found by simulation; `docs/design/bench-statistics.md` has the table.

use super::codes::{BATCHES, BatchCounts, SLOWER_THAN_ANY, quantile_rank};
use super::{beta, normal, student};

/// The ranks of the two order statistics around a quantile, from 1 on. There is no end where too few values lie beyond
/// the quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// The lower rank.
    pub low: Option<u64>,
    /// The upper rank.
    pub high: Option<u64>,
}

/// The ranks that hold the quantile `p` of `n` independent values between them with probability 1 - `alpha` at least,
/// half of `alpha` on each side.
#[must_use]
pub fn ranks(n: u64, p: f64, alpha: f64) -> Ranks {
    // The number of values below the quantile is binomial. The rank l is too high if at most l - 1 values lie below.
    let first_with = |reached: &dyn Fn(u64) -> bool| {
        let (mut low, mut high) = (0, n + 1);
        while low < high {
            let middle = u64::midpoint(low, high);
            if reached(middle) { high = middle } else { low = middle + 1 }
        }
        low
    };
    let beyond = first_with(&|k| k > n || beta::binomial_at_most(k, n, p) > alpha / 2.0);
    let upper = first_with(&|k| k > n || beta::binomial_at_most(k, n, p) >= 1.0 - alpha / 2.0);
    Ranks { low: (beyond > 0).then_some(beyond), high: (upper < n).then_some(upper + 1) }
}

/// The fewest independent values of which the greatest is above the quantile `p` often enough to be the upper end.
#[must_use]
pub fn least_values(p: f64, alpha: f64) -> u64 {
    // All of n values lie below it with probability p^n.
    ((alpha / 2.0).ln() / p.ln()).ceil() as u64
}

/// A quantile of codes and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileInterval {
    /// The quantile of all codes; [`SLOWER_THAN_ANY`] if it lies among the requests without a good answer.
    pub value: u16,
    /// The lower end, if there is one.
    pub low: Option<u16>,
    /// The upper end. Without one the data says nothing about how large the quantile may be.
    pub high: Option<u16>,
    /// [`BatchCounts::inflation`]; `None` with too few codes for batches.
    pub inflation: Option<f64>,
    /// As how many independent requests they count; 0 with too few codes for batches.
    pub effective: f64,
}

/// The quantile `p` with its interval at the confidence 1 - `alpha`; `None` if there are no codes.
#[must_use]
pub fn interval(counts: &BatchCounts, p: f64, alpha: f64) -> Option<QuantileInterval> {
    let value = counts.quantile(p)?;
    let inflation = counts.inflation(value);
    let effective = inflation.map_or(0.0, |inflation| effective_requests(counts.total(), inflation, alpha));
    let (low, high) = ends(counts, p, alpha, effective);
    Some(QuantileInterval { value, low, high, inflation, effective })
}

/// As how many independent requests `total` count.
#[must_use]
pub fn effective_requests(total: u64, inflation: f64, alpha: f64) -> f64 {
    total as f64 / with_penalty(inflation, alpha)
}

/// By how much requests are to be divided so that they count as independent ones at the confidence 1 - `alpha`: the
/// inflation, times `(t / z)^2` because it is an estimate from [`BATCHES`] batches.
#[must_use]
pub fn with_penalty(inflation: f64, alpha: f64) -> f64 {
    let t = student::quantile(1.0 - alpha / 2.0, BATCHES as f64 - 1.0);
    let z = normal::quantile(1.0 - alpha / 2.0);
    inflation * (t / z).powi(2)
}

/// The ends of the interval if the codes count as `effective` independent ones.
fn ends(counts: &BatchCounts, p: f64, alpha: f64, effective: f64) -> (Option<u16>, Option<u16>) {
    let (n, total) = (effective.floor(), counts.total());
    if n < 1.0 {
        return (None, None);
    }
    let (ranks, middle, scale) = (ranks(n as u64, p, alpha), quantile_rank(total, p), total as f64 / n);
    let low = ranks.low.map(|low| ((low as f64 * scale).floor() as u64).clamp(1, middle));
    let high = ranks.high.map(|high| ((high as f64 * scale).ceil() as u64).clamp(middle, total));
    (low.map(|rank| counts.at_rank(rank)), high.map(|rank| counts.at_rank(rank)))
}

/// The most times the present data that [`needed_growth`] looks ahead.
const MAX_GROWTH: f64 = 1e5;
/// How much more data each look of [`needed_growth`] takes: looks of a run are that far apart, too.
pub const NEXT_LOOK: f64 = 1.25;

/// How many times the present data is needed until half of the interval of the quantile `p` is at most `precision` times
/// the quantile: 1 if it is already. `None` if that is unknown, as with too few codes for batches, or so much more that no
/// run gets there.
///
/// The shape of the tail is taken from the present codes, whose values `value_of` gives, in any unit.
#[must_use]
pub fn needed_growth(
    counts: &BatchCounts,
    p: f64,
    alpha: f64,
    precision: f64,
    value_of: impl Fn(u16) -> f64,
) -> Option<f64> {
    let found = interval(counts, p, alpha).filter(|found| found.effective >= 1.0)?;
    if found.value == SLOWER_THAN_ANY {
        return None;
    }
    let is_narrow = |growth: f64| match ends(counts, p, alpha, found.effective * growth) {
        (Some(low), Some(high)) if high != SLOWER_THAN_ANY => {
            value_of(high) - value_of(low) <= 2.0 * precision * value_of(found.value)
        }
        _ => false,
    };
    let mut growth = 1.0;
    while !is_narrow(growth) {
        growth *= NEXT_LOOK;
        if growth > MAX_GROWTH {
            return None;
        }
    }
    Some(growth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    fn found(n: u64, p: f64) -> (Option<u64>, Option<u64>) {
        let Ranks { low, high } = ranks(n, p, 0.05);
        (low, high)
    }

    // Expected values: scipy 1.17 (binom.cdf).
    #[test]
    fn ranks_match_their_vectors() {
        assert_eq!(found(1_000, 0.99), (Some(983), Some(997)));
        let cover = beta::binomial_at_most(996, 1_000, 0.99) - beta::binomial_at_most(982, 1_000, 0.99);
        close(cover, 0.976_094_763_497_977, 1e-9);
        assert_eq!(found(10_000, 0.99), (Some(9_880), Some(9_920)));
        assert_eq!(found(100, 0.5), (Some(40), Some(61)));
        assert_eq!(found(367, 0.99), (Some(359), None));
        assert_eq!(found(368, 0.99), (Some(360), Some(368)));
        assert_eq!(found(30, 0.9), (Some(23), None));
        assert_eq!(found(1, 0.5), (None, None));
        assert_eq!((least_values(0.99, 0.05), least_values(0.999, 0.05)), (368, 3_688));
    }

    #[test]
    fn an_interval_is_where_the_ranks_say() {
        // Independent in effect: each batch has the same codes, so that the inflation is 1.
        let codes: Vec<u16> = (0..20_000).map(|at| (at % 1_000) as u16).collect();
        let counts = BatchCounts::of(&codes);
        let got = interval(&counts, 0.9, 0.05).unwrap();
        assert_eq!((got.value, got.inflation), (899, Some(1.0)));
        // 20 000 / (2.09302 / 1.95996)^2, with the binomial's ranks at that size.
        close(got.effective, 17_537.9, 1e-5);
        let Ranks { low, high } = ranks(17_537, 0.9, 0.05);
        let scale = 20_000.0 / 17_537.0;
        assert_eq!(got.low, Some(((low.unwrap() as f64 * scale).floor() / 20.0).ceil() as u16 - 1));
        assert_eq!(got.high, Some(((high.unwrap() as f64 * scale).ceil() / 20.0).ceil() as u16 - 1));
    }

    #[test]
    fn few_codes_have_a_quantile_and_no_interval() {
        let few = interval(&BatchCounts::of(&[5; 19]), 0.5, 0.05).unwrap();
        assert_eq!((few.value, few.low, few.high, few.inflation, few.effective), (5, None, None, None, 0.0));
        assert_eq!(interval(&BatchCounts::of(&[]), 0.5, 0.05), None);
        let some = interval(&BatchCounts::of(&[5; 400]), 0.99, 0.05).unwrap();
        assert_eq!((some.low, some.high), (Some(5), None), "400 count as 350");
    }

    #[test]
    fn the_data_still_needed_is_told() {
        let mut random = 1_u64;
        let codes: Vec<u16> = (0..2_000)
            .map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 54) as u16
            })
            .collect();
        let counts = BatchCounts::of(&codes);
        let needed = |precision| needed_growth(&counts, 0.5, 0.05, precision, f64::from);
        let (wide, narrow) = (needed(0.05).unwrap(), needed(0.005).unwrap());
        assert!(wide >= 1.0 && (30.0..300.0).contains(&(narrow / wide)), "{wide} {narrow}");
        assert_eq!(needed(1.0), Some(1.0));
        assert_eq!(needed(0.0), None);
        assert_eq!(needed_growth(&BatchCounts::of(&[SLOWER_THAN_ANY; 90]), 0.5, 0.05, 0.1, f64::from), None);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_quantile_and_narrows_with_alpha(
            codes in prop::collection::vec(0_u16..1_000, 1..2_000), p in 0.01..0.999, alpha in 0.001..0.4,
        ) {
            let counts = BatchCounts::of(&codes);
            let found = interval(&counts, p, alpha).unwrap();
            prop_assert!(found.low.is_none_or(|low| low <= found.value));
            prop_assert!(found.high.is_none_or(|high| high >= found.value));
            // Of as many independent requests: the penalty for the estimated inflation depends on alpha itself, and moves ranks by one.
            let (wide, narrow) =
                (ends(&counts, p, alpha, found.effective), ends(&counts, p, alpha * 2.0, found.effective));
            prop_assert!(wide.0.unwrap_or(0) <= narrow.0.unwrap_or(0), "{:?} {:?}", wide, narrow);
            prop_assert!(wide.1.unwrap_or(u16::MAX) >= narrow.1.unwrap_or(u16::MAX), "{:?} {:?}", wide, narrow);
        }

        #[test]
        fn an_interval_follows_a_monotone_change_of_codes(codes in prop::collection::vec(0_u16..200, 20..1_000), p in 0.01..0.999) {
            let stretch = |code: u16| code * code + 5;
            let stretched: Vec<u16> = codes.iter().map(|&code| stretch(code)).collect();
            let plain = interval(&BatchCounts::of(&codes), p, 0.05).unwrap();
            let other = interval(&BatchCounts::of(&stretched), p, 0.05).unwrap();
            prop_assert_eq!((other.value, other.low, other.high), (stretch(plain.value), plain.low.map(stretch), plain.high.map(stretch)));
        }

        #[test]
        fn the_ranks_hold_the_quantile_as_often_as_they_say(n in 1_u64..3_000, p in 0.01..0.995, alpha in 0.001..0.5) {
            let Ranks { low, high } = ranks(n, p, alpha);
            let (tail, slack) = (alpha / 2.0, 1e-12);
            if let Some(low) = low {
                prop_assert!(beta::binomial_at_most(low - 1, n, p) <= tail + slack);
                prop_assert!(low == n || beta::binomial_at_most(low, n, p) > tail - slack);
            }
            match high {
                Some(high) => prop_assert!(beta::binomial_at_most(high - 1, n, p) >= 1.0 - tail - slack),
                None => prop_assert!(beta::binomial_at_most(n - 1, n, p) < 1.0 - tail + slack),
            }
        }
    }
}
