//! From when on a run is steady, and whether it stays so.

/// Where the warm-up ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// How many values belong to the warm-up.
    pub dropped: usize,
    /// Whether the warm-up ended within the first half of the values. If not, it may go on.
    pub settled: bool,
}

/// How many values are averaged before [`mser`].
pub const MSER_BATCH: usize = 5;

/// The means of five values each; a rest of fewer is left out.
#[must_use]
pub fn means_of_five(values: &[f64]) -> Vec<f64> {
    values.chunks_exact(MSER_BATCH).map(|five| five.iter().sum::<f64>() / MSER_BATCH as f64).collect()
}

/// The warm-up by the marginal standard error rule: the number `d` of dropped values, at most half of them, at which
/// `sum((y_j - mean)^2) / (n - d)^2` over the others is least. On [`means_of_five`] it is MSER-5 (White, Cobb and Spratt
/// 2000). `None` for fewer than four values.
#[must_use]
pub fn mser(values: &[f64]) -> Option<Truncation> {
    let n = values.len();
    if n < 4 {
        return None;
    }
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    let mut best = (f64::INFINITY, n / 2);
    // From the end, so that each value is added once (Welford 1962).
    for (dropped, value) in values.iter().enumerate().rev() {
        count += 1.0;
        let step = value - mean;
        mean += step / count;
        squares += step * (value - mean);
        let error = squares / (count * count);
        if dropped <= n / 2 && error <= best.0 {
            best = (error, dropped);
        }
    }
    Some(Truncation { dropped: best.1, settled: best.1 < n / 2 })
}

/// A test for a trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Pairs that rise less pairs that fall.
    pub s: i64,
    /// `s` in its standard deviations without a trend: above 2.58 or below -2.58 one time in a hundred.
    pub z: f64,
}

/// The trend of values in their order (Mann 1945, Kendall 1975), with the correction for ties; z is 0 if all are tied.
#[must_use]
pub fn mann_kendall(values: &[f64]) -> Trend {
    let sign = |difference: f64| i64::from(difference > 0.0) - i64::from(difference < 0.0);
    let s: i64 = values
        .iter()
        .enumerate()
        .flat_map(|(at, value)| values[at + 1..].iter().map(move |later| sign(later - value)))
        .sum();
    let weight = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tied| weight(tied.len() as f64)).sum();
    let deviation = ((weight(values.len() as f64) - ties) / 18.0).sqrt();
    let z = if deviation > 0.0 { (s - s.signum()) as f64 / deviation } else { 0.0 };
    Trend { s, z }
}

/// |z| above which a trend makes a run unsteady: one time in a hundred without one.
pub const UNSTEADY_Z: f64 = 2.58;
/// How much more the last quarter has in flight than the first if a run is overloaded.
const OVERLOAD_RISE: f64 = 1.5;

/// Whether requests pile up: those in flight rise, and the last quarter of the values is more than 1.5 times the first.
#[must_use]
pub fn overload(in_flight: &[f64]) -> bool {
    let quarter = in_flight.len() / 4;
    if quarter == 0 {
        return false;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (first, last) = (mean(&in_flight[..quarter]), mean(&in_flight[in_flight.len() - quarter..]));
    mann_kendall(in_flight).z > UNSTEADY_Z && last > OVERLOAD_RISE * first
}

/// How far a window is from Little's law (1961): the requests in flight, integrated over the window, against the summed
/// durations of the requests that came in it, as a share of the latter. What is in flight at the window's ends does not
/// cancel if a run is not steady. 0 if both are 0, `None` if only the durations are.
#[must_use]
pub fn little_gap(in_flight_integral: f64, durations: f64) -> Option<f64> {
    if durations == 0.0 {
        return (in_flight_integral == 0.0).then_some(0.0);
    }
    Some((in_flight_integral - durations).abs() / durations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    #[test]
    fn the_warm_up_matches_its_vector() {
        let values = [14.26, 10.68, 10.06, 9.98, 10.02, 10.06, 10.0, 10.0];
        assert_eq!(mser(&values), Some(Truncation { dropped: 3, settled: true }));
        assert_eq!(mser(&values[..3]), None);
        let falling: Vec<f64> = (0..20).map(|at| f64::from(100 - at)).collect();
        assert_eq!(mser(&falling), Some(Truncation { dropped: 10, settled: false }));
        assert_eq!(mser(&[5.0; 9]), Some(Truncation { dropped: 0, settled: true }));
        assert_eq!(means_of_five(&[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]), [3.0]);
    }

    #[test]
    fn the_trend_matches_its_vector() {
        let found = mann_kendall(&[4.0, 5.0, 7.0, 6.0, 9.0, 8.0, 11.0, 12.0, 14.0, 13.0]);
        assert_eq!(found.s, 39);
        close(found.z, 3.398_823_325_799_680_3, 1e-12);
        assert_eq!(mann_kendall(&[2.0; 8]), Trend { s: 0, z: 0.0 });
        assert_eq!(mann_kendall(&[]), Trend { s: 0, z: 0.0 });
        // Four pairs of ties: the variance is (8 * 7 * 21 - 4 * 2 * 1 * 9) / 18, s is 24.
        close(
            mann_kendall(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]).z,
            23.0 / (1_104.0_f64 / 18.0).sqrt(),
            1e-12,
        );
    }

    #[test]
    fn requests_that_pile_up_are_an_overload() {
        let rising: Vec<f64> = (0..20).map(|at| f64::from(10 + at)).collect();
        assert!(overload(&rising));
        let level: Vec<f64> = (0..20).map(|at| f64::from(100 + at)).collect();
        assert!(!overload(&level), "a trend of a fifth is no overload");
        assert!(!overload(&[1.0, 9.0, 1.0, 9.0, 1.0, 9.0, 1.0, 9.0]));
        assert!(!overload(&[1.0, 2.0, 3.0]));
    }

    #[test]
    fn the_gap_of_littles_law_is_a_share_of_the_durations() {
        assert_eq!(
            (little_gap(101.0, 100.0), little_gap(0.0, 0.0), little_gap(1.0, 0.0)),
            (Some(0.01), Some(0.0), None)
        );
    }

    proptest! {
        #[test]
        fn the_warm_up_has_the_least_error(values in prop::collection::vec(-100.0..100.0, 4..60)) {
            let found = mser(&values).unwrap();
            let error = |dropped: usize| {
                let rest = &values[dropped..];
                let n = rest.len() as f64;
                let mean = rest.iter().sum::<f64>() / n;
                rest.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / (n * n)
            };
            for dropped in 0..=values.len() / 2 {
                prop_assert!(error(found.dropped) <= error(dropped) + 1e-9);
            }
        }

        #[test]
        fn a_trend_turns_round_with_its_values(values in prop::collection::vec(0_i32..20, 0..40)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let turned: Vec<f64> = values.iter().rev().copied().collect();
            let stretched: Vec<f64> = values.iter().map(|value| value.exp()).collect();
            let (there, back) = (mann_kendall(&values), mann_kendall(&turned));
            prop_assert_eq!((there.s, there.z), (-back.s, -back.z));
            prop_assert_eq!(mann_kendall(&stretched), there);
        }
    }
}
