//! The metrics of trials that are on.

use headgate_core::trial::counts::{ERRORS, OUTCOMES};
use serde_json::{Value, json};

use crate::metrics::rendering::family;

/// The reasons why a request is no evidence.
const APART: [&str; 4] = ["by_rule", "direct", "fallback", "client_mistakes"];

/// The metrics of these trials: endpoints, and the reports of their trials.
#[rustfmt::skip]
pub fn families(trials: &[(String, Value)]) -> Vec<Value> {
    let outcomes = OUTCOMES.map(|outcome| outcome.as_str());
    let codes = ERRORS.map(|error| error.as_str());
    let counter = |name: &str, help: &str, samples: Vec<Value>| family(name, help, "counter", samples.into_iter());
    let gauge = |name: &str, help: &str, samples: Vec<Value>| family(name, help, "gauge", samples.into_iter());
    let of_trial = |read: fn(&Value) -> &Value| -> Vec<Value> {
        trials.iter().map(|(endpoint, trial)| json!([{"endpoint": endpoint}, read(trial)])).collect()
    };
    vec![
        counter("headgate_trial_requests_total", "Slot-routed requests of versions that share an endpoint's traffic, by how they ended: ran, shed, not_ready, fell_back, cancelled or lost. A trial counts anew.",
            by_label(trials, "outcome", &outcomes, |arm| arm)),
        counter("headgate_trial_errors_total", "Runs of slot-routed requests that ended with an error, by its code.",
            by_label(trials, "code", &codes, |arm| &arm["codes"])),
        counter("headgate_trial_first_errors_total", "Errors that are the first of their unit: the sticky key, or the request if there is none.",
            by_arm(trials, |arm| &arm["first_errors"])),
        gauge("headgate_trial_units", "Units with a slot-routed request: by sticky key, or requests if there is none.",
            by_arm(trials, |arm| &arm["units"])),
        counter("headgate_trial_nan_answers_total", "Slot-routed answers with a NaN in an output.",
            by_arm(trials, |arm| &arm["nan_answers"])),
        counter("headgate_trial_slower_total", "First requests of units that took longer than their threshold from admission to reply, or failed.",
            by_arm(trials, |arm| &arm["exceedances"]["slower_reply"])),
        counter("headgate_trial_apart_total", "Requests that are no evidence, by reason: by_rule, direct, fallback (in another version's place), client_mistakes.",
            by_label(trials, "reason", &APART, |arm| &arm["apart"])),
        gauge("headgate_trial_in_flight", "Slot-routed requests in progress.",
            by_arm(trials, |arm| &arm["in_flight"])),
        gauge("headgate_trial_gaps", "Restarts during the trial; what happened in between is not known.",
            trials.iter().map(|(endpoint, trial)| json!([{"endpoint": endpoint}, trial["gaps"].as_array().map_or(0, Vec::len)])).collect()),
        counter("headgate_trial_minutes_dropped_total", "Rows of minutes that fell out because the trial has too many; its totals keep them.",
            of_trial(|trial| &trial["minutes_dropped"])),
        counter("headgate_trial_first_errors_dropped_total", "First errors that fell out of the list because there were too many; the totals keep them.",
            of_trial(|trial| &trial["first_errors_dropped"])),
        gauge("headgate_trial_unit_bytes", "Memory of the trial's units: one byte each, at most 1 MB.",
            of_trial(|trial| &trial["unit_bytes"])),
    ]
}

/// The arms that have slots.
fn served(trials: &[(String, Value)]) -> impl Iterator<Item = (&str, &Value)> {
    trials.iter().flat_map(|(endpoint, trial)| {
        let arms = trial["arms"].as_array().into_iter().flatten();
        arms.filter(|arm| arm["slots"].is_u64()).map(move |arm| (endpoint.as_str(), arm))
    })
}

fn by_arm(trials: &[(String, Value)], read: fn(&Value) -> &Value) -> Vec<Value> {
    let sample = |(endpoint, arm): (&str, &Value)| json!([{"endpoint": endpoint, "version": arm["version"]}, read(arm)]);
    served(trials).map(sample).collect()
}

/// One sample for each field, under that label.
fn by_label(
    trials: &[(String, Value)],
    label: &str,
    fields: &[&str],
    read: fn(&Value) -> &Value,
) -> Vec<Value> {
    let samples = |(endpoint, arm): (&str, &Value)| -> Vec<Value> {
        let sample = |field: &&str| {
            let mut labels = json!({"endpoint": endpoint, "version": arm["version"]});
            labels[label] = json!(field);
            json!([labels, read(arm)[*field]])
        };
        fields.iter().map(sample).collect()
    };
    served(trials).flat_map(samples).collect()
}
