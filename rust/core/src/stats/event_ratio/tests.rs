use super::*;
use crate::stats::testing::close;
use proptest::prelude::*;

fn events(exposure: f64, champion: u64, challenger: u64) -> Events {
    Events { exposure, champion, challenger }
}

/// A ramp: 1 %, 5 %, 25 %, where the challenger has more of the errors at first and as many as it should at last.
const RAMP: [(f64, u64, u64); 3] = [(0.01, 20, 1), (0.05, 18, 3), (0.25, 10, 8)];

fn ramp() -> Vec<Events> {
    RAMP.map(|(exposure, champion, challenger)| events(exposure, champion, challenger)).to_vec()
}

// Expected values here and below: computed in Python from the formulas, to the digits written.
#[test]
fn each_alternative_of_a_ramp_has_its_likelihood_ratio() {
    let expected = [1.273_172, 2.122_203, 3.067_632, 3.467_607, 2.184_218, -3.197_335];
    for (alternative, expected) in ALTERNATIVES.into_iter().zip(expected) {
        let found: f64 = ramp().into_iter().map(|e| ln_likelihood_ratio(e, e.exposure, alternative)).sum();
        close(found, expected, 1e-6);
    }
    close(ln_mixture(&ramp(), 1.0, false).exp(), 12.399_52, 1e-6);
}

#[test]
fn blocks_bring_their_part_of_the_reserve_into_play() {
    let mut test = SequentialTest::default();
    close(test.e_value(), 1.0, 1e-12);
    for (block, expected) in ramp().into_iter().zip([1.330_860, 2.616_505, 7.853_822]) {
        test.begin_block();
        test.count(block);
        close(test.e_value(), expected, 1e-6);
    }
}

#[test]
fn a_test_without_its_first_blocks_has_less_than_the_whole() {
    let (mut whole, mut rest) = (SequentialTest::default(), SequentialTest::default());
    rest.skip_blocks(1);
    whole.count(events(0.5, 0, 3));
    for test in [&mut whole, &mut rest] {
        test.begin_block();
        test.count(events(0.5, 1, 6));
    }
    let forgotten = ln_mixture(&[events(0.5, 0, 3), events(0.5, 1, 6)], 1.0, false).exp() / 2.0;
    close(rest.e_value() + forgotten, whole.e_value(), 1e-12);
}

#[test]
fn the_most_likely_ratio_is_that_of_the_counts() {
    close(ratio_estimate(&[events(0.01, 161, 4)]), 4.0 / 161.0 * 99.0, 1e-9);
    close(ratio_estimate(&[events(0.01, 161, 4), events(0.01, 161, 4)]), 4.0 / 161.0 * 99.0, 1e-9);
    assert_eq!(ratio_estimate(&[events(0.3, 5, 0)]), 0.0);
    assert_eq!(ratio_estimate(&[events(0.3, 0, 5)]), f64::INFINITY);
    assert!(ratio_estimate(&[]).is_nan());
}

#[test]
fn a_strict_margin_asks_for_more() {
    // 4 of 165 events at 1 % of the exposure.
    let few = [events(0.01, 161, 4)];
    close(ln_mixture(&few, 1.0, false).exp(), 1.833_0, 1e-4);
    close(ln_mixture(&few, 1.5, false).exp(), 0.811_52, 1e-4);
}

#[test]
fn intervals_match_their_vectors() {
    let found = ratio_interval(&[events(0.01, 161, 4)], 0.95);
    close(found.low, 0.304_894, 1e-5);
    close(found.high, 8.416_027, 1e-6);
    let found = ratio_interval(&ramp(), 0.95);
    close(found.low, 0.824_086, 1e-5);
    close(found.high, 8.218_322, 1e-6);
}

#[test]
fn no_events_contradict_no_ratio() {
    assert_eq!(ratio_interval(&[], 0.95), Interval { low: 0.0, high: f64::INFINITY });
    assert_eq!(ratio_interval(&[events(0.5, 0, 3)], 0.95).high, f64::INFINITY);
    assert_eq!(ratio_interval(&[events(0.5, 3, 0)], 0.95).low, 0.0);
}

#[test]
fn an_arm_that_sheds_is_exposed_less() {
    close(exposure(0.5, 1.0, 0.7), 0.588_235, 1e-6);
    close(exposure(0.05, 0.98, 0.60), 0.079_160, 1e-5);
}

#[test]
fn errors_of_units_that_erred_before_count_by_the_weight_gained_since() {
    assert_eq!(weight_after_champion_error(0.05, 0.05), None);
    close(weight_after_champion_error(0.05, 0.01).unwrap(), 4.0 / 99.0, 1e-12);
    close(weight_after_champion_error(0.25, 0.05).unwrap(), 4.0 / 19.0, 1e-12);
    let run = [
        events(0.01, 3, 1),
        events(4.0 / 99.0, 0, 2),
        events(0.05, 6, 0),
        events(4.0 / 19.0, 4, 0),
        events(0.25, 0, 3),
    ];
    close(ln_mixture(&run, 1.0, false).exp(), 15.572_266, 1e-6);
}

proptest! {
    /// The mean of the likelihood ratio over both outcomes of the next event is 1 where the arms are equal: the property
    /// that every promise about false alarms rests on.
    #[test]
    fn an_event_of_equal_arms_changes_nothing_on_average(exposure in 0.001..0.999_f64, pick in 0_usize..6) {
        let ratio = |champion, challenger| {
            ln_likelihood_ratio(events(exposure, champion, challenger), exposure, ALTERNATIVES[pick]).exp()
        };
        prop_assert!((exposure * ratio(0, 1) + (1.0 - exposure) * ratio(1, 0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_interval_holds_the_ratio_that_was_counted(
        exposure in 0.01..0.9_f64, champion in 1_u64..500, challenger in 1_u64..500,
    ) {
        let counted = challenger as f64 / champion as f64 * (1.0 - exposure) / exposure;
        let found = ratio_interval(&[events(exposure, champion, challenger)], 0.95);
        prop_assert!(found.low <= counted && counted <= found.high, "{found:?} without {counted}");
    }
}
