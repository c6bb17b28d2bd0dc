//! Rollouts with made-up requests on the real counters and the real judge: how often a challenger that is no worse is rolled back, and
//! how soon one that is worse is caught.
//!
//! Short and seeded here; `make simulate` runs the whole and prints the tables of `docs/design/gates.md`.

mod feedback;
mod output_drift;
mod random;
mod scenario;
mod tables;
mod world;

use headgate_core::gates::question::{Gate, Question};
use scenario::{KeyModel, Scenario, run};
use tables::{all_gates, binomial_bound, false_rollbacks, nulls};

/// A part of the scenarios, so that the parts run side by side; each rollout is half as long as in the whole.
fn keep_the_promise(part: usize) {
    const PARTS: usize = 4;
    const RUNS: u64 = 3;
    for (scenario, judged) in nulls().into_iter().skip(part).step_by(PARTS) {
        let steps = scenario.steps.iter().map(|(slots, minutes)| (*slots, minutes / 2)).collect();
        let short = Scenario { look: scenario.look.max(4), steps, ..scenario };
        let found = false_rollbacks(&short, judged, RUNS);
        assert!(found <= binomial_bound(RUNS, 0.01), "{}: {found} of {RUNS}", short.name);
    }
}

#[test]
fn equal_versions_stay_first_part() {
    keep_the_promise(0);
}

#[test]
fn equal_versions_stay_second_part() {
    keep_the_promise(1);
}

#[test]
fn equal_versions_stay_third_part() {
    keep_the_promise(2);
}

#[test]
fn equal_versions_stay_fourth_part() {
    keep_the_promise(3);
}

#[test]
fn the_bound_is_the_binomial_quantile() {
    // scipy 1.17, binom.ppf(0.999, n, 0.01).
    assert_eq!([2_000, 200, 20].map(|runs| binomial_bound(runs, 0.01)), [35, 8, 3]);
}

#[test]
fn harm_is_caught_by_the_gate_for_it() {
    let question = all_gates();
    let caught =
        |scenario: &Scenario, gates: &[Gate]| run(scenario, &question, gates, 7).failed_after.is_some();
    let [errors, run_time, reply_time, availability] = question.gates[..] else {
        unreachable!("there are four gates")
    };
    let steps = vec![(500, 30), (5_000, 30)];
    let base = Scenario { steps, per_minute: 600.0, look: 10, ..Scenario::null("harm") };
    let failing = Scenario { challenger_error: 10.0, ..base.clone() };
    assert!(caught(&failing, &[errors]) && !caught(&failing, &[availability]));
    let slow = Scenario { challenger_time: 2.0, ..base.clone() };
    assert!(
        caught(&slow, &[run_time]) && caught(&slow, &[reply_time]) && !caught(&slow, &[errors, availability])
    );
    let shedding = Scenario { shed: [0.0, 0.3], ..base.clone() };
    assert!(caught(&shedding, &[availability]) && !caught(&shedding, &[errors, run_time, reply_time]));
    assert!(!caught(&base, &question.gates));
    let without_keys = Scenario { keys: KeyModel::None, ..failing };
    assert!(caught(&without_keys, &[errors]));
}

#[test]
fn equal_feedback_stays_and_worse_feedback_is_caught() {
    const RUNS: u64 = 4;
    for scenario in feedback::equal_feedback() {
        let short = feedback::FeedbackScenario { look: scenario.look.max(10), ..scenario };
        let found = feedback::false_failures(&short, RUNS);
        assert!(found <= binomial_bound(RUNS, 0.01), "{}: {found} of {RUNS}", short.name);
    }
    let question = feedback::feedback_question();
    let worse = feedback::FeedbackScenario {
        worse_by: 0.2,
        ..feedback::FeedbackScenario::null("worse", feedback::Values::Label(0.1))
    };
    assert!((0..RUNS).all(|seed| feedback::failed_after(&worse, &question, seed).is_some()));
}

#[test]
fn outputs_that_are_near_stay_and_distant_ones_are_caught() {
    const RUNS: u64 = 3;
    for (scenario, above) in output_drift::near_outputs() {
        let short = output_drift::OutputScenario { look: scenario.look.max(10), ..scenario };
        for distance in ["ks", "total_variation"] {
            let found = output_drift::false_failures(&(short.clone(), above), distance, RUNS);
            assert!(found <= binomial_bound(RUNS, 0.01), "{} {distance}: {found} of {RUNS}", short.name);
        }
    }
    let distant = output_drift::OutputScenario {
        moved: 0.4,
        look: 10,
        ..output_drift::OutputScenario::null("distant", output_drift::Outputs::Uniform)
    };
    for distance in ["ks", "total_variation"] {
        let question = output_drift::output_question(0.1, distance);
        assert!((0..RUNS).all(|seed| output_drift::failed_after(&distant, &question, seed).is_some()));
    }
}

#[test]
#[ignore = "minutes: make simulate"]
fn simulate_outputs() {
    let runs = tables::rollouts();
    let broken = output_drift::print_outputs(runs, binomial_bound(runs, 0.01));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
#[ignore = "minutes: make simulate"]
fn simulate_feedback() {
    let runs = tables::rollouts();
    let broken = feedback::print_feedback(runs, binomial_bound(runs, 0.01));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
#[ignore = "minutes: make simulate"]
fn simulate() {
    let mut broken = tables::print_nulls();
    broken.extend(tables::print_medians());
    tables::print_catches();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Reads a question of these gates.
fn question(gates: &str) -> Question {
    let json = format!(r#"{{"challenger": "v8", "gates": [{gates}], "false_rollbacks": 0.01}}"#);
    match Question::from_json(&json) {
        Ok(question) => question,
        Err(error) => unreachable!("{error}"),
    }
}
