use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::gates::question::Question;
use crate::gates::report::judge_json;
use crate::stats::testing::close;
use crate::trial::arm::ArmReading;
use crate::trial::counts::TrialCount;
use crate::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use crate::trial::outputs::{Reference, WatchedFeature, WatchedOutputs};
use crate::trial::report::{Detail, RunningTrial};

/// Two features with five bins each.
fn watched() -> WatchedOutputs {
    let feature = |output: &str, column: &str| {
        let reference = Reference { edges: &[0.0], counts: &[5, 5], apart: [0; 3] };
        WatchedFeature::new(output, column, 0, reference).unwrap()
    };
    WatchedOutputs::new(vec![feature("score", "risk"), feature("label", "label")]).unwrap()
}

fn trial(slots: u16) -> Ledger {
    let name = |version: &str| ArmName { version: version.into(), digest: version.into(), outputs: vec![] };
    let identity =
        TrialIdentity { attempt: "e/1".into(), champion: "v7".into(), digest: "v7".into(), sticky: None };
    let mut ledger = Ledger::new(identity, name("v7"), 0);
    ledger.arm(&name("v8"));
    ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)]));
    ledger
}

/// Adds answers of an arm: in both features so many in the lower and in the upper bin.
fn add(ledger: &mut Ledger, arm: u8, score: [u64; 2], label: [u64; 2]) {
    let mut reading = ArmReading { outputs_digest: watched().digest, ..ArmReading::default() };
    let counts = [[0, score[0], score[1], 0, 0], [0, label[0], label[1], 0, 0]].concat();
    reading.outputs.insert(None, counts);
    for count in [TrialCount::Begun, TrialCount::Ran] {
        reading.counts.add_one(count, score.iter().sum());
    }
    ledger.add(60 * MINUTE_MS, (0, arm), &reading, |ns| ns);
}

fn compared(challenger: [u64; 2]) -> Ledger {
    let mut ledger = trial(5_000);
    ledger.watch(Some(&watched()));
    add(&mut ledger, 0, [500, 500], [900, 100]);
    add(&mut ledger, 1, challenger, [900, 100]);
    ledger.settle_outputs();
    ledger
}

fn judged(ledger: &Ledger, gate: &Value) -> Value {
    let question = json!({"challenger": "v8", "false_rollbacks": 0.01, "gates": [gate]});
    let told = ledger.report(&RunningTrial::default(), Detail::Whole).to_string();
    let answer: Value = serde_json::from_str(&judge_json(&told, &question.to_string()).unwrap()).unwrap();
    answer["gates"][0].clone()
}

#[test]
fn a_distance_above_the_limit_fails_and_one_below_it_passes() {
    for (challenger, above, verdict) in [
        ([500, 500], 0.1, "pass"),
        ([450, 550], 0.1, "pass"),
        ([200, 800], 0.1, "fail"),
        ([800, 200], 0.1, "fail"),
        ([200, 800], 0.4, "pass"),
    ] {
        for distance in ["ks", "total_variation"] {
            let gate = json!({"gate": "output_drift", "above": above, "distance": distance});
            let found = judged(&compared(challenger), &gate);
            assert_eq!(found["verdict"], verdict, "{challenger:?} {above}: {found}");
            let truth = (challenger[0] as f64 - 500.0).abs() / 1_000.0;
            close(found["distance"].as_f64().unwrap(), truth, 1e-9);
            let interval = [&found["interval"][0], &found["interval"][1]].map(|end| end.as_f64().unwrap());
            assert!(interval[0] <= truth && truth <= interval[1] && interval[1] < 1.0, "{found}");
            assert_eq!((&found["features"], &found["distance_kind"]), (&json!(2), &json!(distance)));
            if verdict == "fail" {
                assert_eq!(found["feature"], "score.risk");
                assert!(interval[0] > above, "{found}");
            }
        }
    }
}

#[test]
fn a_gate_on_one_output_does_not_look_at_the_others() {
    let ledger = compared([100, 900]);
    for (name, verdict) in [("score", "fail"), ("risk", "fail"), ("score.risk", "fail"), ("label", "pass")] {
        let found = judged(&ledger, &json!({"gate": format!("output_drift.{name}"), "above": 0.1}));
        assert_eq!((&found["verdict"], &found["features"]), (&json!(verdict), &json!(1)), "{found}");
        assert_eq!(found["gate"], format!("output_drift.{name}"));
    }
    let unknown = judged(&ledger, &json!({"gate": "output_drift.other", "above": 0.1}));
    assert_eq!(unknown["verdict"], "undecided");
    assert!(unknown["reason"].as_str().unwrap().contains("no output or column other"));
}

#[test]
fn a_feature_that_one_version_does_not_have_is_no_difference_and_hides_none() {
    for (challenger, verdict) in [([500, 500], "pass"), ([200, 800], "fail")] {
        let mut ledger = trial(5_000);
        ledger.watch(Some(&watched()));
        // The champion's labels are far from those of the reference.
        add(&mut ledger, 0, [500, 500], [1_000, 0]);
        add(&mut ledger, 1, challenger, [0, 0]);
        ledger.settle_outputs();
        let found = judged(&ledger, &json!({"gate": "output_drift", "above": 0.1}));
        assert_eq!(
            (&found["verdict"], &found["feature"]),
            (&json!(verdict), &json!("score.risk")),
            "{found}"
        );
        assert_eq!(found["interval"][1], 1.0);
        let alone = judged(&ledger, &json!({"gate": "output_drift.label", "above": 0.1}));
        assert_eq!((&alone["verdict"], &alone["champion"]["n"]), (&json!("undecided"), &json!(1_000)));
        assert!(alone["reason"].as_str().unwrap().contains("no answer of v8"), "{alone}");
        assert_eq!((&alone["detectable"], &alone["e_value"]), (&Value::Null, &json!(1.0)));
    }
}

#[test]
fn a_feature_is_named_by_its_output() {
    let found = [("score", "score"), ("score", "risk"), ("scores", "2")].map(|(a, b)| label(a, b));
    assert_eq!(found, ["score", "score.risk", "scores[2]"]);
}

#[test]
fn nothing_passes_without_answers_that_could_show_something() {
    let reason = |ledger: &Ledger| {
        let found = judged(ledger, &json!({"gate": "output_drift", "above": 0.1}));
        assert_eq!(found["verdict"], "undecided", "{found}");
        found["reason"].as_str().unwrap().to_owned()
    };
    let mut ledger = trial(5_000);
    assert!(reason(&ledger).contains("no baseline with columns of its outputs"));
    ledger.watch(Some(&watched()));
    assert!(reason(&ledger).contains("no answer of v8"));
    add(&mut ledger, 1, [5, 5], [5, 5]);
    ledger.settle_outputs();
    assert!(reason(&ledger).contains("no answer of v7"));
    add(&mut ledger, 0, [5, 5], [5, 5]);
    ledger.settle_outputs();
    assert!(reason(&ledger).contains("so few answers show no distance above 0.1"));
}

#[test]
fn a_gate_that_is_shown_stops_nothing_and_takes_no_part_of_the_promise() {
    let shown = judged(&compared([100, 900]), &json!({"gate": "output_drift"}));
    assert_eq!((&shown["verdict"], &shown["threshold"]), (&json!("undecided"), &json!(100.0)));
    close(shown["distance"].as_f64().unwrap(), 0.4, 1e-9);
    assert_eq!((&shown["e_value"], &shown["detectable"]), (&Value::Null, &Value::Null));
    let question = |gates: &str| {
        let json = format!(r#"{{"challenger": "v8", "false_rollbacks": 0.01, "gates": [{gates}]}}"#);
        Question::from_json(&json)
    };
    let both = question(r#"{"gate": "error_rate", "above": 2}, {"gate": "output_drift"}"#).unwrap();
    assert_eq!(both.threshold(), 100.0);
    let both =
        question(r#"{"gate": "error_rate", "above": 2}, {"gate": "output_drift", "above": 0.1}"#).unwrap();
    assert_eq!(both.threshold(), 200.0);
    for (gate, words) in [
        (r#"{"gate": "output_drift", "above": 1}"#, "a distance below 1"),
        (r#"{"gate": "output_drift", "above": 0.1, "strict": true}"#, "strict does not belong"),
        (r#"{"gate": "output_drift", "above": 0.1, "distance": "psi"}"#, "distance"),
        (r#"{"gate": "error_rate", "above": 2, "distance": "ks"}"#, "distance belongs to output_drift"),
        (r#"{"gate": "feedback.sale", "above": 2, "distance": "ks"}"#, "distance does not belong"),
        (r#"{"gate": "output_drifts", "above": 0.1}"#, "above must be at least 1"),
    ] {
        assert!(question(gate).unwrap_err().to_string().contains(words), "{gate}");
    }
}

#[test]
fn evidence_that_is_told_is_judged_as_the_ledger_is() {
    let ledger = compared([300, 700]);
    let told = ledger.report(&RunningTrial::default(), Detail::Whole);
    let (found, _) = Evidence::from_json(&told.to_string(), "v8").unwrap();
    let from_ledger = Evidence::from_ledger(&ledger, &RunningTrial::default(), "v8").unwrap();
    assert_eq!(found.outputs, from_ledger.outputs);
    let mut damaged = told.clone();
    damaged["outputs"]["features"][0]["sums"]["v8"]["squares"][1] = json!(-1.0);
    let refused = Evidence::from_json(&damaged.to_string(), "v8").unwrap_err();
    assert!(refused.contains("risk contradict themselves"), "{refused}");
    let summary = ledger.report(&RunningTrial::default(), Detail::Summary);
    assert_eq!(summary["outputs"]["features"][0]["values"], json!({"v7": 1_000, "v8": 1_000}));
    assert_eq!(summary["outputs"]["features"][0]["sums"], Value::Null);
}
