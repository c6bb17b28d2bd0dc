//! Answers in JSON.

use super::*;
use crate::gates::judge::judge;
use crate::gates::report::{judge_json, power, thresholds_json};
use crate::gates::timeline::Exposed;

/// A change that makes evidence unfit.
type Damage<'a> = &'a dyn Fn(&mut Value);

/// The verdicts of all parts of an answer.
pub(super) fn all_verdicts(answer: &str) -> Vec<(String, String)> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let gates = answer["gates"].as_array().unwrap().iter();
    let parts = gates.chain([&answer["srm"], &answer["few_keys"]]);
    parts
        .map(|part| {
            (part["verdict"].as_str().unwrap().to_owned(), part["reason"].as_str().unwrap_or("").to_owned())
        })
        .collect()
}

#[test]
fn the_numbers_of_an_answer_match_their_vectors() {
    let mut ledger = trial(&[100]);
    add(&mut ledger, 7, 0, [errors(80_388, 161), errors(812, 4)]);
    let question = json!({"challenger": "v8", "false_rollbacks": 0.01, "gates": [
        {"gate": "error_rate", "above": 1.5}, {"gate": "error_rate", "above": 1.5, "strict": true}]});
    let answer: Value =
        serde_json::from_str(&judge_json(&told(&ledger), &question.to_string()).unwrap()).unwrap();
    let gate = &answer["gates"][0];
    assert_eq!(
        (&gate["verdict"], &gate["reason"], &gate["threshold"]),
        (&json!("pass"), &json!(null), &json!(200.0))
    );
    assert_eq!(gate["champion"], json!({"units": 80_388, "n": 80_388, "bad": 161}));
    assert_eq!(gate["challenger"], json!({"units": 812, "n": 812, "bad": 4}));
    close(gate["ratio"].as_f64().unwrap(), 2.4596, 1e-4);
    close(gate["interval"][0].as_f64().unwrap(), 0.304_894, 1e-5);
    close(gate["interval"][1].as_f64().unwrap(), 8.416_027, 1e-6);
    close(gate["e_value"].as_f64().unwrap(), of_one_block(1.8330), 1e-4);
    assert_eq!(gate["need"]["ratio"], 3.0);
    close(answer["gates"][1]["e_value"].as_f64().unwrap(), of_one_block(0.811_52), 1e-4);
}

#[test]
fn thresholds_are_the_champions_quantile_and_what_the_gate_allows_over_it() {
    let question = json!({"challenger": "v8", "false_rollbacks": 0.01, "gates": [
        {"gate": "latency.p95", "above": 1.2, "ignore_below_ns": 500, "measure": "run"},
        {"gate": "latency.p50", "above": 2, "ignore_below_ns": 5_000_000, "measure": "reply"}]});
    let mut ledger = trial(&[100]);
    let ask = |ledger: &Ledger| -> Value {
        serde_json::from_str(&thresholds_json(&told(ledger), &question.to_string()).unwrap()).unwrap()
    };
    let minute = |runs: u64| Minute {
        ran: runs,
        run: durations((0..runs).map(|run| 1_000 * (run % 100))),
        ..Minute::default()
    };
    add(&mut ledger, 0, 0, [minute(399), minute(5)]);
    assert_eq!(ask(&ledger), json!({"thresholds": null, "answers": 399, "needed": 400}));
    add(&mut ledger, 1, 0, [minute(1), minute(5)]);
    let found = ask(&ledger)["thresholds"].take();
    assert_eq!(found["attempt"], "e/r7");
    let (champion, challenger) = (&found["arms"]["v7"], &found["arms"]["v8"]);
    let run = champion["run_ns"].as_u64().unwrap();
    assert!((94_000..96_000).contains(&run), "{run}");
    assert_eq!(challenger["run_ns"], (run as f64 * 1.2).ceil() as u64);
    assert_eq!(challenger["reply_ns"], 5_000_000);
    let twice = r#"{"challenger": "v8", "false_rollbacks": 0.01, "gates": [
        {"gate": "latency.p95", "above": 1.2, "measure": "run"}, {"gate": "latency.p99", "above": 1.2, "measure": "run"}]}"#;
    assert!(thresholds_json(&told(&ledger), twice).unwrap_err().to_string().contains("one latency gate"));
    // They are the gate's when it is judged, and no other gate's.
    let of = |arm: &Value| (arm["run_ns"].as_u64().unwrap(), arm["reply_ns"].as_u64().unwrap());
    ledger.open_window(0, vec![of(champion), of(challenger)]);
    let verdicts = |question: &Value| {
        let question = Question::from_json(&question.to_string()).unwrap();
        let judged =
            judge(&evidence(&ledger), &Durations::from_ledger(&ledger, "v8").unwrap(), &question).gates;
        judged.into_iter().map(|gate| gate.decision.verdict).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&question), [Verdict::Undecided; 2]);
    let mut other = question.clone();
    other["gates"][0]["above"] = json!(3.0);
    assert_eq!(verdicts(&other), [Verdict::Error, Verdict::Undecided]);
}

#[test]
fn a_mismatch_of_units_is_told_over_the_history_of_weights() {
    let answer = |challenger: [u64; 3]| -> Value {
        let mut ledger = trial(&[100, 500, 2_500]);
        for (split, (units, challenger)) in [10_000, 20_000, 40_000].into_iter().zip(challenger).enumerate() {
            let minute = |units| errors(units, 0);
            add(&mut ledger, split as u64, split as u8, [minute(units - challenger), minute(challenger)]);
        }
        let question = r#"{"challenger": "v8", "gates": [{"gate": "error_rate", "above": 1.5}], "false_rollbacks": 0.01}"#;
        let answer: Value = serde_json::from_str(&judge_json(&told(&ledger), question).unwrap()).unwrap();
        answer["srm"].clone()
    };
    let sound = answer([96, 1_010, 10_010]);
    assert_eq!((&sound["verdict"], &sound["expected"]), (&json!("pass"), &json!(11_100.0)));
    assert_eq!(answer([96, 1_010, 10_700])["verdict"], "fail");
    assert_eq!(answer([200, 1_010, 10_010])["verdict"], "fail");
}

#[test]
fn no_trial_and_no_data_are_undecided() {
    let asked = r#"{"challenger": "v8", "gates": [{"gate": "error_rate", "above": 1.5},
        {"gate": "latency.p95", "above": 1.2, "measure": "reply"}, {"gate": "availability", "above": 1.5}], "false_rollbacks": 0.01}"#;
    let verdicts = |evidence: &str| -> Vec<String> {
        let answer: Value = serde_json::from_str(&judge_json(evidence, asked).unwrap()).unwrap();
        let gates = answer["gates"].as_array().unwrap().iter().map(|gate| &gate["verdict"]);
        let all = gates.chain([&answer["srm"]["verdict"], &answer["few_keys"]["verdict"]]);
        all.map(|verdict| verdict.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(verdicts("null"), ["undecided"; 5]);
    assert_eq!(verdicts(&told(&trial(&[100]))), ["undecided"; 5]);
    let mut one_sided = trial(&[100]);
    add(&mut one_sided, 0, 0, [errors(5_000, 5), Minute::default()]);
    assert_eq!(verdicts(&told(&one_sided))[..3], ["undecided"; 3]);
}

#[test]
fn evidence_that_cannot_be_judged_is_an_error_with_its_reason() {
    let mut ledger = trial(&[100]);
    add(&mut ledger, 0, 0, [errors(5_000, 5), errors(50, 1)]);
    let sound: Value = serde_json::from_str(&told(&ledger)).unwrap();
    let asked =
        r#"{"challenger": "v8", "gates": [{"gate": "error_rate", "above": 1.5}], "false_rollbacks": 0.01}"#;
    let change = |change: &dyn Fn(&mut Value)| {
        let mut evidence = sound.clone();
        change(&mut evidence);
        all_verdicts(&judge_json(&evidence.to_string(), asked).unwrap())
    };
    assert_eq!(change(&|_| {})[0], ("pass".to_owned(), String::new()));
    let cases: [(Damage, &str); 11] = [
        (&|evidence| evidence["format"] = json!(2), "format 2"),
        (
            &|evidence| {
                evidence.as_object_mut().unwrap().remove("format");
            },
            "no format",
        ),
        (
            &|evidence| {
                evidence.as_object_mut().unwrap().remove("minutes");
            },
            "minutes",
        ),
        (&|evidence| evidence["arms"][1]["version"] = json!("v7"), "two artifacts"),
        (&|evidence| evidence["arms"][1]["version"] = json!("v9"), "no version v8"),
        (&|evidence| evidence["minutes"][0]["split"] = json!(3), "split 3"),
        (&|evidence| evidence["minutes"][0]["arms"]["v8"]["first_errors"] = json!(500), "more of a part"),
        (&|evidence| evidence["minutes"][0]["arms"]["v8"]["ran"] = json!(49), "add up"),
        (&|evidence| evidence["arms"][0]["shed"] = json!(900), "contradict"),
        (&|evidence| evidence["arms"][0]["unplaced_errors"] = json!(1), "divisions"),
        (&|evidence| evidence["splits"][0]["slots"] = json!({}), "divisions"),
    ];
    for (damage, words) in cases {
        for (verdict, reason) in change(damage) {
            assert!(verdict == "error" && reason.contains(words), "{words}: {verdict} {reason}");
        }
    }
}

#[test]
fn what_a_plan_is_told_is_what_a_gate_tells() {
    let told = power(Exposed { requests: 1_000, exposure: 0.05 }, 0.002, 400.0).unwrap();
    assert!(told["detectable"].as_f64().unwrap() > 3.0);
    assert_eq!(told["requests"][0][0], 2.0);
    for (exposure, base, threshold) in [(0.0, 0.1, 100.0), (0.5, 1.0, 100.0), (0.5, 0.1, 0.5)] {
        assert!(power(Exposed { requests: 1, exposure }, base, threshold).is_err());
    }
}
