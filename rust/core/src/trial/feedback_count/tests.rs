use std::collections::BTreeMap;

use super::*;
use crate::feedback::declared::{FeedbackKind, Good, Range};
use crate::feedback::moments::Moments;
use crate::trial::feedback::MAX_STRATA;
use crate::trial::ledger::{ArmName, TrialIdentity};
use crate::trial::report::{Detail, RunningTrial};
use proptest::prelude::*;

const HOUR_S: u32 = 3_600;
const SPEC: FeedbackSpec = FeedbackSpec {
    kind: FeedbackKind::Value,
    range: Range(0.0, 5.0),
    good: Good::High,
    within_ms: 1,
    coverage: None,
};

fn ledger() -> Ledger {
    let name = |version: &str| ArmName { version: version.into(), digest: version.into(), outputs: vec![] };
    let identity = TrialIdentity {
        attempt: "e/1".into(),
        champion: "v1".into(),
        digest: "v1".into(),
        sticky: Some("header.x".into()),
    };
    let mut ledger = Ledger::new(identity, name("v1"), 0);
    ledger.arm(&name("v2"));
    for slots in [100, 500] {
        ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)]));
    }
    ledger
}

fn given(arm: u8, split: u8, unit: Option<u32>, value: f64) -> GivenFeedback {
    GivenFeedback { arm, split, unit, issued_s: 7_200, value }
}

#[test]
fn a_unit_counts_once_for_each_split() {
    let (mut ledger, units) = (ledger(), UnitTable::default());
    let mut add = |given| ledger.add_feedback("sale", &SPEC, given, Some(&units));
    assert_eq!(add(given(0, 0, Some(7), 5.0)), Counted::Evidence);
    assert_eq!(add(given(0, 0, Some(7), 1.0)), Counted::Repeated);
    assert_eq!(add(given(0, 0, Some(8), 2.0)), Counted::Evidence);
    assert_eq!(add(given(1, 1, Some(7), 3.0)), Counted::Evidence);
    // An answer of the earlier split, after one of the later split.
    assert_eq!(add(given(0, 0, Some(7), 1.0)), Counted::Repeated);
    // Without a key the request is the unit.
    assert_eq!(add(given(1, 1, None, 4.0)), Counted::Evidence);
    assert_eq!(add(given(1, 1, None, 4.0)), Counted::Evidence);
    assert_eq!(add(given(2, 1, None, 4.0)), Counted::Unplaced);
    assert_eq!(add(given(1, 2, None, 4.0)), Counted::Unplaced);
    let feedback = &ledger.feedback[0];
    assert_eq!(feedback.total(0), Moments { n: 2, sum: 7.0, squares: 29.0 });
    assert_eq!(feedback.total(1), Moments { n: 3, sum: 11.0, squares: 41.0 });
    assert_eq!(feedback.repeated, BTreeMap::from([(0, 2)]));
    assert_eq!((feedback.strata.len(), &feedback.strata[0].repeated), (2, &feedback.repeated));
    // After a restart, a unit is known that has counted.
    let stored = serde_json::to_vec(&ledger).unwrap();
    let mut restored: Ledger = serde_json::from_slice(&stored).unwrap();
    let units = UnitTable::from_bytes(&units.to_bytes()).unwrap();
    assert!(restored.is_sound());
    assert_eq!(restored.feedback, ledger.feedback);
    let again = restored.add_feedback("sale", &SPEC, given(0, 0, Some(8), 2.0), Some(&units));
    assert_eq!(again, Counted::Repeated);
}

#[test]
fn a_feedback_that_means_something_else_begins_anew() {
    let (mut ledger, units) = (ledger(), UnitTable::default());
    ledger.add_feedback("sale", &SPEC, given(0, 0, Some(7), 5.0), Some(&units));
    ledger.add_feedback("other", &SPEC, given(0, 0, Some(7), 5.0), Some(&units));
    let lower = FeedbackSpec { good: Good::Low, ..SPEC };
    assert_eq!(
        ledger.add_feedback("sale", &lower, given(0, 0, Some(7), 1.0), Some(&units)),
        Counted::Evidence
    );
    assert_eq!(ledger.feedback[0].total(0), Moments { n: 1, sum: 1.0, squares: 1.0 });
    // The units of the other one stay.
    let other = ledger.add_feedback("other", &SPEC, given(0, 0, Some(7), 1.0), Some(&units));
    assert_eq!(other, Counted::Repeated);
}

#[test]
fn what_was_declared_last_of_its_coverage_counts_and_an_earlier_state_has_none() {
    let mut ledger = ledger();
    ledger.add_feedback("sale", &SPEC, given(0, 0, None, 5.0), None);
    let asking = FeedbackSpec { coverage: Some(8_000), within_ms: 9, ..SPEC };
    assert_eq!(ledger.add_feedback("sale", &asking, given(0, 0, None, 5.0), None), Counted::Evidence);
    let known = &ledger.feedback[0];
    assert_eq!((known.coverage, known.within_ms, known.total(0).n), (Some(8_000), 9, 2));
    let mut stored = serde_json::to_value(&ledger).unwrap();
    let feedback = stored["feedback"][0].as_object_mut().unwrap();
    assert!(feedback.remove("coverage").is_some() && feedback.remove("within_ms").is_some());
    assert!(feedback["strata"][0].get("repeated").is_none());
    let restored: Ledger = serde_json::from_value(stored).unwrap();
    assert_eq!((restored.feedback[0].coverage, restored.feedback[0].within_ms), (None, 0));
    assert!(restored.is_sound());
}

#[test]
fn feedbacks_and_strata_are_bounded_and_what_falls_out_is_counted() {
    let mut ledger = ledger();
    for number in 0..MAX_FEEDBACKS + 1 {
        let counted = ledger.add_feedback(&format!("f{number}"), &SPEC, given(0, 0, None, 1.0), None);
        assert_eq!(counted == Counted::Unplaced, number == MAX_FEEDBACKS);
    }
    for hour in 0..MAX_STRATA as u32 + 2 {
        let given = GivenFeedback { issued_s: (hour + 10) * HOUR_S, ..given(0, 0, None, 1.0) };
        ledger.add_feedback("f0", &SPEC, given, None);
    }
    let feedback = &ledger.feedback[0];
    assert_eq!((feedback.strata.len(), feedback.dropped), (MAX_STRATA, 3));
    assert!(ledger.is_sound());
    ledger.feedback[0].strata.swap(0, 1);
    assert!(!ledger.is_sound());
}

#[test]
fn a_trial_tells_its_feedback_by_the_names_of_versions() {
    let mut ledger = ledger();
    ledger.add_feedback("sale", &SPEC, given(1, 1, None, 4.0), None);
    let report = ledger.report(&RunningTrial::default(), Detail::Whole);
    let told = &report["feedback"][0];
    assert_eq!(
        (&told["name"], &told["range"], &told["good"]),
        (&"sale".into(), &serde_json::json!([0.0, 5.0]), &"high".into())
    );
    assert_eq!(told["arms"]["v2"], serde_json::json!({"n": 1, "sum": 4.0, "squares": 16.0, "repeated": 0}));
    assert_eq!(told["strata"][0]["hour"], 2);
    assert_eq!(told["strata"][0]["arms"]["v2"]["n"], 1);
    assert!(ledger.report(&RunningTrial::default(), Detail::Summary)["feedback"][0]["strata"].is_null());
}

proptest! {
    /// In any order of arrival the strata are the same, and hold every value that counts.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        values in proptest::collection::vec((0u8..2, 0u8..2, 0u32..50_000, 0u8..6), 1..60), seed in any::<u64>(),
    ) {
        let add_all = |values: &[(u8, u8, u32, u8)]| {
            let mut ledger = ledger();
            for &(arm, split, issued_s, value) in values {
                let given = GivenFeedback { arm, split, unit: None, issued_s, value: f64::from(value) };
                ledger.add_feedback("sale", &SPEC, given, None);
            }
            ledger.feedback
        };
        let found = add_all(&values);
        let mut shuffled = values.clone();
        shuffled.sort_by_key(|value| crate::slots::key_hash("order", format!("{seed}{value:?}").as_bytes()));
        prop_assert_eq!(&found, &add_all(&shuffled));
        prop_assert_eq!(found[0].total(0).n + found[0].total(1).n, values.len() as u64);
        prop_assert!(found[0].is_sound(2, 2));
    }
}
