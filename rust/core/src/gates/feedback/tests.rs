use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::feedback::declared::{FeedbackKind, FeedbackSpec};
use crate::gates::report::judge_json;
use crate::stats::testing::close;
use crate::trial::arm::ArmReading;
use crate::trial::counts::TrialCount;
use crate::trial::feedback::GivenFeedback;
use crate::trial::feedback_count::Counted;
use crate::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use crate::trial::report::{Detail, RunningTrial};
use crate::trial::units::UnitTable;
use proptest::prelude::*;

const HOUR_S: u32 = 3_600;

fn spec(good: Good) -> FeedbackSpec {
    FeedbackSpec { kind: FeedbackKind::Value, range: Range(0.0, 1.0), good, within_ms: 1, coverage: None }
}

/// A trial without keys whose challenger has so many slots at its splits, and 1 000 answers for each 1 000 of them.
fn trial(slots: &[u16]) -> Ledger {
    let name = |version: &str| ArmName { version: version.into(), digest: version.into(), outputs: vec![] };
    let identity =
        TrialIdentity { attempt: "e/1".into(), champion: "v7".into(), digest: "v7".into(), sticky: None };
    let mut ledger = Ledger::new(identity, name("v7"), 0);
    ledger.arm(&name("v8"));
    for &slots in slots {
        let split = ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)])).0;
        for (arm, ran) in [(0, 10_000 - slots), (1, slots)] {
            let mut reading = ArmReading::default();
            for count in [TrialCount::Begun, TrialCount::Ran] {
                reading.counts.add_one(count, u64::from(ran));
            }
            ledger.add(60 * MINUTE_MS, (split, arm), &reading, |ns| ns);
        }
    }
    ledger
}

/// Adds so many values of an arm, of which the part `share` is 1 and the others 0.
fn give(ledger: &mut Ledger, (arm, split, hour): (u8, u8, u32), n: u64, ones: u64, good: Good) {
    for number in 0..n {
        let value = if number < ones { 1.0 } else { 0.0 };
        let given = GivenFeedback { arm, split, unit: None, issued_s: hour * HOUR_S, value };
        assert_eq!(ledger.add_feedback("sale", &spec(good), given, None), Counted::Evidence);
    }
}

fn evidence(ledger: &Ledger) -> Evidence {
    Evidence::from_ledger(ledger, &RunningTrial::default(), "v8").unwrap()
}

fn judged(ledger: &Ledger, above: f64) -> Value {
    let question = json!({
        "challenger": "v8", "false_rollbacks": 0.01, "gates": [{"gate": "feedback.sale", "above": above}],
    });
    let told = ledger.report(&RunningTrial::default(), Detail::Whole).to_string();
    let answer: Value = serde_json::from_str(&judge_json(&told, &question.to_string()).unwrap()).unwrap();
    answer["gates"][0].clone()
}

// Expected values: the formulas in Python (numpy), two strata of (n_h, ones_h), (n_c, ones_c): (900, 90), (100, 20) and
// (500, 40), (500, 60).
#[test]
fn strata_match_their_vectors() {
    let mut ledger = trial(&[1_000, 5_000]);
    give(&mut ledger, (0, 0, 1), 900, 90, Good::Low);
    give(&mut ledger, (1, 0, 1), 100, 20, Good::Low);
    give(&mut ledger, (0, 1, 2), 500, 40, Good::Low);
    give(&mut ledger, (1, 1, 2), 500, 60, Good::Low);
    let found = compare(&evidence(&ledger), "sale");
    close(found.information, 340.0, 1e-12);
    close(found.sum, 19.0, 1e-12);
    close(found.variance, 0.094200000, 1e-7);
    close(found.difference(), 0.055_882_353, 1e-7);
    close(found.ln_e_value(100f64.ln()), 3.693766332, 1e-7);
    let interval = found.interval(0.95);
    close(interval.low, 0.00323412, 1e-6);
    close(interval.high, 0.10853058, 1e-6);
    // The answers of both versions are those of the rows.
    assert_eq!(found.answers, [14_000, 6_000]);
}

#[test]
fn evidence_that_is_told_is_judged_as_the_ledger_is() {
    let mut ledger = trial(&[1_000]);
    give(&mut ledger, (0, 0, 1), 900, 90, Good::High);
    give(&mut ledger, (1, 0, 1), 100, 20, Good::High);
    let units = UnitTable::default();
    let given = GivenFeedback { arm: 1, split: 0, unit: Some(3), issued_s: HOUR_S, value: 1.0 };
    let asking = FeedbackSpec { coverage: Some(8_000), within_ms: 7, ..spec(Good::High) };
    for counted in [Counted::Evidence, Counted::Repeated] {
        assert_eq!(ledger.add_feedback("sale", &asking, given, Some(&units)), counted);
    }
    let told = ledger.report(&RunningTrial::default(), Detail::Whole).to_string();
    let (told, _) = Evidence::from_json(&told, "v8").unwrap();
    assert_eq!(compare(&told, "sale"), compare(&evidence(&ledger), "sale"));
}

#[test]
fn worse_feedback_fails_and_better_or_slightly_worse_feedback_passes() {
    for (good, ones, above, verdict) in [
        (Good::Low, 600, 0.05, "fail"),
        (Good::Low, 600, 0.2, "pass"),
        (Good::High, 600, 0.05, "pass"),
        (Good::High, 400, 0.05, "fail"),
        (Good::High, 500, 0.05, "pass"),
    ] {
        let mut ledger = trial(&[5_000]);
        give(&mut ledger, (0, 0, 1), 1_000, 500, good);
        give(&mut ledger, (1, 0, 1), 1_000, ones, good);
        let gate = judged(&ledger, above);
        assert_eq!(gate["verdict"], verdict, "{good:?} {ones} {above}: {gate}");
        let difference = (ones as f64 - 500.0) / 1_000.0;
        close(gate["difference"].as_f64().unwrap(), difference, 1e-9);
        assert_eq!(gate["champion"]["mean"], 0.5);
        if above == 0.2 {
            assert!(gate["reason"].as_str().unwrap().contains("by less than the limit"));
        }
    }
}

#[test]
fn without_values_of_both_versions_nothing_is_decided() {
    let mut ledger = trial(&[5_000]);
    let words = |ledger: &Ledger| {
        let gate = judged(ledger, 0.0);
        assert_eq!(gate["verdict"], "undecided", "{gate}");
        assert_eq!((&gate["difference"], &gate["detectable"]), (&Value::Null, &Value::Null));
        gate["reason"].as_str().unwrap().to_owned()
    };
    assert!(words(&ledger).contains("no feedback sale was given on answers of v8"));
    give(&mut ledger, (1, 0, 1), 10, 10, Good::Low);
    assert!(words(&ledger).contains("on answers of v7"));
    give(&mut ledger, (0, 0, 2), 10, 0, Good::Low);
    assert!(words(&ledger).contains("no hour has feedback"));
}

/// Values of another age: the champion's old answers have none of the labels that come late.
#[test]
fn answers_of_other_weights_are_not_compared() {
    let mut ledger = trial(&[100, 5_000]);
    give(&mut ledger, (0, 0, 1), 9_900, 99, Good::Low);
    give(&mut ledger, (1, 0, 1), 100, 1, Good::Low);
    give(&mut ledger, (0, 1, 9), 5_000, 500, Good::Low);
    give(&mut ledger, (1, 1, 9), 5_000, 500, Good::Low);
    let gate = judged(&ledger, 0.0);
    assert_eq!(gate["verdict"], "pass");
    close(gate["difference"].as_f64().unwrap(), 0.0, 1e-12);
    // The means over all answers differ by more than 5 points.
    let mean = |arm: &str| gate[arm]["mean"].as_f64().unwrap();
    assert!(mean("challenger") - mean("champion") > 0.05);
}

#[test]
fn feedback_that_comes_for_one_version_more_often_decides_nothing() {
    let mut ledger = trial(&[5_000]);
    give(&mut ledger, (0, 0, 1), 2_000, 0, Good::Low);
    give(&mut ledger, (1, 0, 1), 500, 500, Good::Low);
    let gate = judged(&ledger, 0.0);
    assert_eq!(gate["verdict"], "undecided");
    assert!(gate["reason"].as_str().unwrap().contains("more often"), "{gate}");
}

/// Half of the answers have feedback, and the challenger's are much worse.
#[test]
fn less_feedback_than_its_declaration_asks_for_decides_nothing() {
    let mut ledger = trial(&[5_000]);
    give(&mut ledger, (0, 0, 1), 2_500, 0, Good::Low);
    give(&mut ledger, (1, 0, 1), 2_500, 2_500, Good::Low);
    for (asked, verdict) in [(None, "fail"), (Some(5_000), "fail"), (Some(5_001), "undecided")] {
        ledger.feedback[0].coverage = asked;
        let gate = judged(&ledger, 0.0);
        assert_eq!(gate["verdict"], verdict, "{asked:?}: {gate}");
        assert_eq!(
            (&gate["champion"]["coverage"], &gate["challenger"]["coverage"]),
            (&json!(0.5), &json!(0.5))
        );
        assert_eq!(gate["coverage"], json!(asked.map(|share| f64::from(share) / 10_000.0)));
        if verdict == "undecided" {
            let wanted = "50.0 % of the answers of v8 have feedback sale, and its coverage asks for 50.01 %";
            assert_eq!(gate["reason"], wanted);
        }
    }
}

#[test]
fn a_single_bad_label_is_no_proof() {
    let mut ledger = trial(&[5_000]);
    give(&mut ledger, (0, 0, 1), 500, 0, Good::Low);
    give(&mut ledger, (1, 0, 1), 500, 3, Good::Low);
    assert_eq!(judged(&ledger, 0.0)["verdict"], "pass");
    give(&mut ledger, (1, 0, 1), 60, 60, Good::Low);
    assert_eq!(judged(&ledger, 0.0)["verdict"], "fail");
}

#[test]
fn feedback_that_contradicts_itself_is_no_evidence() {
    let mut ledger = trial(&[5_000]);
    give(&mut ledger, (0, 0, 1), 5, 0, Good::Low);
    let mut report = ledger.report(&RunningTrial::default(), Detail::Whole);
    report["feedback"][0]["strata"][0]["split"] = json!(7);
    let damage = Evidence::from_json(&report.to_string(), "v8").unwrap_err();
    assert!(damage.contains("names a split"), "{damage}");
    report["feedback"][0]["strata"][0] =
        json!({"hour": 1, "split": 0, "arms": {"v7": {"n": 0, "sum": 3.0, "squares": 1.0}}});
    let damage = Evidence::from_json(&report.to_string(), "v8").unwrap_err();
    assert!(damage.contains("contradict themselves"), "{damage}");
}

proptest! {
    /// Mirrored values and direction give the same verdict; the interval holds the estimate; worse values of the challenger
    /// never lower the sum.
    #[test]
    fn the_direction_is_a_mirror(
        strata in proptest::collection::vec((1u64..60, 0u64..60, 1u64..60, 0u64..60), 1..6), above in 0.0f64..0.3,
    ) {
        let filled = |mirrored: bool| {
            let mut ledger = trial(&[5_000]);
            for (hour, &(n_h, ones_h, n_c, ones_c)) in strata.iter().enumerate() {
                for (arm, n, ones) in [(0, n_h, ones_h.min(n_h)), (1, n_c, ones_c.min(n_c))] {
                    let (ones, good) = if mirrored { (n - ones, Good::High) } else { (ones, Good::Low) };
                    give(&mut ledger, (arm, 0, hour as u32 + 1), n, ones, good);
                }
            }
            ledger
        };
        let (low, high) = (filled(false), filled(true));
        let (of_low, of_high) = (compare(&evidence(&low), "sale"), compare(&evidence(&high), "sale"));
        prop_assert!((of_low.difference() + of_high.difference()).abs() < 1e-9);
        prop_assert_eq!(&judged(&low, above)["verdict"], &judged(&high, above)["verdict"]);
        let interval = of_low.interval(0.95);
        prop_assert!(interval.low <= of_low.difference() && of_low.difference() <= interval.high);
        let mut worse = low.clone();
        give(&mut worse, (1, 0, 1), 40, 40, Good::Low);
        prop_assert!(compare(&evidence(&worse), "sale").sum >= of_low.sum - 1e-9);
    }
}
