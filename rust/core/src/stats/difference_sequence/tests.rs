use super::*;
use crate::stats::testing::close;
use proptest::prelude::*;

const FIRST: ([f64; 3], [[u64; 3]; 2]) = ([0.5, 0.3, 0.2], [[40, 24, 16], [4, 6, 10]]);
const SECOND: ([f64; 3], [[u64; 3]; 2]) = ([0.4, 0.3, 0.3], [[20, 15, 15], [10, 15, 25]]);

fn drawn<'a>(weight: f64, of: &'a ([f64; 3], [[u64; 3]; 2])) -> Drawn<'a> {
    Drawn { weight, expected: &of.0, counts: of.1.each_ref().map(|counts| &counts[..]) }
}

fn both() -> DifferenceSums {
    let mut sums = DifferenceSums::new(3);
    sums.add(drawn(0.2, &FIRST));
    sums.add(drawn(0.5, &SECOND));
    sums
}

// Expected values: the formulas in Python, value by value.
#[test]
fn sums_match_their_vectors() {
    let sums = both();
    close(sums.information, 41.0, 1e-12);
    for (found, wanted) in sums.sums.iter().zip([-9.8, 0.0, 9.8]) {
        close(*found, wanted, 1e-12);
    }
    for (found, wanted) in sums.squares.iter().zip([9.5, 8.61, 11.114]) {
        close(*found, wanted, 1e-12);
    }
    for (found, wanted) in sums.squares_below.iter().zip([9.5, 11.114]) {
        close(*found, wanted, 1e-12);
    }
}

#[test]
fn distances_and_bounds_match_their_vectors() {
    let sums = both();
    for (distance, sets, e_value, high, beyond) in [
        (Distance::Ks, 2, 0.296_492_999, 0.667_099_842, 0.552_586_813),
        (Distance::TotalVariation, 5, 0.174_142_366, 0.892_871_230, 0.584_513_320),
    ] {
        assert_eq!(sums.set_count(distance), sets);
        close(sums.estimate(distance), 9.8 / 41.0, 1e-12);
        close(ln_e_value(sums.ln_wealth(distance, 0.05), sets), e_value, 1e-8);
        let found = sums.interval(distance, (sets, 0.05));
        assert_eq!(found.0, 0.0);
        close(found.1, high, 1e-8);
        close(sums.detectable_beyond(distance, (sets, 100f64.ln()), 0.841_621_233_572_914_2), beyond, 1e-8);
    }
    let planned = |values, weight| planned_beyond(values, weight, (75, 400f64.ln()), 0.841_621_233_572_914_2);
    for (values, weight, wanted) in
        [(200.0, 0.05, 0.267_151_716), (1_000.0, 0.05, 0.107_565_124), (1e5, 0.5, 0.013_671_730_5)]
    {
        close(planned(values, weight), wanted, 1e-8);
    }
    assert_eq!(planned(0.0, 0.5), f64::INFINITY);
}

#[test]
fn nothing_is_known_without_values_of_two_arms() {
    let mut sums = DifferenceSums::new(3);
    sums.add(drawn(0.0, &FIRST));
    sums.add(drawn(1.0, &FIRST));
    assert_eq!(sums, DifferenceSums::new(3));
    assert!(sums.estimate(Distance::Ks).is_nan());
    assert_eq!(sums.interval(Distance::Ks, (2, 0.05)), (0.0, 1.0));
    close(ln_e_value(sums.ln_wealth(Distance::Ks, 0.1), 2), 0.0, 1e-12);
    assert!(sums.is_sound(3) && !sums.is_sound(4));
    assert!(!DifferenceSums { information: f64::NAN, ..DifferenceSums::new(3) }.is_sound(3));
    assert!(!DifferenceSums { squares: vec![-1.0; 3], ..DifferenceSums::new(3) }.is_sound(3));
}

/// Numbers that are the same in each run (SplitMix64).
struct Stream(u64);

impl Stream {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Values in four bins that move to the upper ones with time, in both arms; the second arm has the part `moved` of its lowest bin in the
/// highest one. Gives whether the e-value has reached `threshold` at any of 40 looks, and whether the interval has ever missed the truth.
fn watched((seed, weight): (u64, f64), moved: f64, limit: f64, threshold: f64) -> (bool, bool) {
    let mut stream = Stream(seed << 20);
    let mut sums = DifferenceSums::new(4);
    let mut pool = [25.0; 4];
    let (mut is_reached, mut is_missed, mut truth) = (false, false, (0.0, 0.0));
    for look in 0..40u32 {
        // The lowest bin has between 60 and 20 % of the values.
        let lowest = 0.4 + 0.2 * (f64::from(look) / 3.0).cos();
        let mut counts = [[0u64; 4]; 2];
        for _ in 0..60 {
            let arm = usize::from(stream.uniform() < weight);
            let at = stream.uniform();
            let mut bin = if at < lowest { 0 } else { 1 + ((at - lowest) / (1.0 - lowest) * 3.0) as usize };
            if arm == 1 && bin == 0 && stream.uniform() < moved {
                bin = 3;
            }
            counts[arm][bin] += 1;
        }
        let total: f64 = pool.iter().sum();
        let expected = pool.map(|count| count / total);
        let counts_of = counts.each_ref().map(|counts| &counts[..]);
        sums.add(Drawn { weight, expected: &expected, counts: counts_of });
        pool.iter_mut().enumerate().for_each(|(bin, sum)| *sum += (counts[0][bin] + counts[1][bin]) as f64);
        truth = (truth.0 + lowest * moved, truth.1 + 1.0);
        is_reached |= ln_e_value(sums.ln_wealth(Distance::Ks, limit), 3) >= threshold.ln();
        let (low, high) = sums.interval(Distance::Ks, (3, 0.05));
        let distance = truth.0 / truth.1;
        is_missed |= distance < low || distance > high;
    }
    (is_reached, is_missed)
}

/// 400 samples at a threshold of 20: a share of 5 % leaves more than 36 with probability 0.1 %.
#[test]
fn a_distance_up_to_the_limit_is_rarely_found_although_values_change_with_time() {
    for (weight, moved, limit) in [(0.05, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.1, 0.06), (0.25, 0.1, 0.06)] {
        let found: Vec<_> = (0..400).map(|seed| watched((seed, weight), moved, limit, 20.0)).collect();
        let reached = found.iter().filter(|(is_reached, _)| *is_reached).count();
        let missed = found.iter().filter(|(_, is_missed)| *is_missed).count();
        assert!(reached <= 36 && missed <= 36, "{weight} {moved}: {reached} reached, {missed} missed");
    }
}

/// Two versions that answer the same requests. The second one moves a part of the values up.
#[test]
fn pairs_are_compared_by_what_moves() {
    let mut sums = DifferenceSums::new(4);
    for [first, second] in [[0, 2], [1, 1], [3, 1], [2, 2]] {
        sums.add_pair([first, second]);
    }
    assert_eq!(sums.information, 4.0);
    assert_eq!(sums.sums, [-1.0, 1.0, 1.0, -1.0]);
    assert_eq!(sums.squares, [1.0, 1.0, 1.0, 1.0]);
    assert_eq!(sums.squares_below, [1.0, 2.0, 1.0]);
    close(sums.estimate(Distance::Ks), 0.25, 1e-12);
    close(sums.estimate(Distance::TotalVariation), 0.5, 1e-12);
    // 30 % of pairs move up, and the limit is 10 %. As many that move down again are no distance.
    let after = |both_ways: bool| {
        let mut stream = Stream(7);
        let mut sums = DifferenceSums::new(4);
        for pair in 0..1_000 {
            let moves = stream.uniform() < 0.3;
            let ends = if both_ways && pair % 2 == 0 { [3, 0] } else { [0, 3] };
            sums.add_pair(if moves { ends } else { [1, 1] });
        }
        ln_e_value(sums.ln_wealth(Distance::Ks, 0.1), 3)
    };
    assert!(after(false) > 1e6f64.ln() && after(true) < 0.0, "{} {}", after(false), after(true));
}

#[test]
fn a_greater_distance_is_found() {
    let reached = |moved, limit| (0..40).filter(|&seed| watched((seed, 0.5), moved, limit, 400.0).0).count();
    assert_eq!(reached(0.9, 0.1), 40);
    assert_eq!(reached(0.1, 0.1), 0);
}

proptest! {
    /// The order in which values come changes nothing, and swapping the arms at one half changes signs alone.
    #[test]
    fn sums_are_linear(
        counts in proptest::array::uniform4(proptest::array::uniform3(0u64..50)), weight in 0.01f64..0.99, share in 0.0f64..0.5,
    ) {
        let expected = [share, share, 1.0 - 2.0 * share];
        let of = |a: usize, b: usize, weight: f64| {
            let mut sums = DifferenceSums::new(3);
            sums.add(Drawn { weight, expected: &expected, counts: [&counts[a], &counts[b]] });
            sums
        };
        let mut in_turn = of(0, 1, weight);
        in_turn.add(Drawn { weight, expected: &expected, counts: [&counts[2], &counts[3]] });
        let together = [0, 1].map(|arm| std::array::from_fn::<u64, 3, _>(|bin| counts[arm][bin] + counts[arm + 2][bin]));
        let mut at_once = DifferenceSums::new(3);
        at_once.add(Drawn { weight, expected: &expected, counts: [&together[0], &together[1]] });
        let pairs = in_turn.sums.iter().chain(&in_turn.squares).zip(at_once.sums.iter().chain(&at_once.squares));
        for (one, other) in pairs {
            prop_assert!((one - other).abs() < 1e-6);
        }
        let (one, other) = (of(0, 1, 0.5), of(1, 0, 0.5));
        for (a, b) in one.sums.iter().zip(&other.sums) {
            prop_assert!((a + b).abs() < 1e-9);
        }
        for distance in [Distance::Ks, Distance::TotalVariation] {
            let (low, high) = one.interval(distance, (one.set_count(distance), 0.05));
            prop_assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0);
            // A greater limit is never easier to pass beyond.
            prop_assert!(one.ln_wealth(distance, 0.2) <= one.ln_wealth(distance, 0.1));
        }
    }
}
