//! The metrics of shadows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use headgate_core::histogram::Counts;
use serde_json::{Value, json};

use crate::metrics::rendering::{family, seconds};
use crate::shadow::drops::DropReason;
use crate::shadow::live_shadow::ShadowState;
use crate::shadow::registry::ShadowRegistry;
use crate::shadow::tally::Tally;

/// All families.
pub fn families(registry: &ShadowRegistry) -> Vec<Value> {
    let states = registry.states();
    let mut all = per_shadow(&states);
    all.extend(by_label(&states));
    all.extend(of_all(registry));
    all
}

fn labels(state: &ShadowState) -> Value {
    json!({"endpoint": state.endpoint, "version": state.version})
}

#[rustfmt::skip]
fn per_shadow(states: &[Arc<ShadowState>]) -> Vec<Value> {
    let state = |name: &str, help: &str, kind: &str, read: fn(&ShadowState) -> Value| {
        family(name, help, kind, states.iter().map(|state| json!([labels(state), read(state)])))
    };
    let counter = |name: &str, help: &str, read: fn(&Tally) -> u64| {
        family(name, help, "counter", states.iter().map(|state| json!([labels(state), read(&state.tally())])))
    };
    vec![
        state("headgate_shadow_drawn_total", "Requests that were drawn for a shadow, once the champion had answered them or failed on them.", "counter", |s| json!(s.drawn.load(Relaxed))),
        counter("headgate_shadow_pairs_total", "Pairs of answers that were compared, by the shadow's version.", |t| t.compared.pairs),
        counter("headgate_shadow_differing_total", "Pairs of answers that differ.", |t| t.compared.differing),
        counter("headgate_shadow_timeouts_total", "Runs of a shadow whose deadline passed.", |t| t.timeouts),
        state("headgate_shadow_champion_failed_total", "Requests drawn for a shadow that the champion had failed on; they are not compared.", "counter", |s| json!(s.champion_failures().requests())),
        counter("headgate_shadow_floor_pairs_total", "Pairs on which the champion was run again, for the noise floor.", |t| t.floor.pairs),
        counter("headgate_shadow_floor_differing_total", "Pairs on which the champion differs from itself.", |t| t.floor.differing),
        state("headgate_shadow_queue_length", "Copies of requests that wait for a shadow.", "gauge", |s| json!(s.queue.len())),
        state("headgate_shadow_queue_bytes", "Memory of the copies that wait for a shadow or are run.", "gauge", |s| json!(s.queue.bytes().used())),
        state("headgate_shadow_cpu_seconds_total", "CPU time of a shadow's runs and comparisons.", "counter", |s| json!(s.cpu_ns.load(Relaxed) as f64 / 1e9)),
        state("headgate_shadow_runs_cancelled_total", "Runs of a shadow that were cancelled at their deadline or at the stop.", "counter", |s| json!(s.runs.cancelled())),
        state("headgate_shadow_run_duration_seconds", "Runs of a shadow. They have the lowest priority, so this says nothing beside headgate_run_duration_seconds.", "histogram", run_seconds),
    ]
}

#[rustfmt::skip]
fn by_label(states: &[Arc<ShadowState>]) -> Vec<Value> {
    let with = |state: &ShadowState, label: &str, value: &str, count: u64| {
        let mut labels = labels(state);
        labels[label] = json!(value);
        json!([labels, count])
    };
    let drops = states.iter().flat_map(|state| {
        DropReason::ALL.iter().map(move |&reason| with(state, "reason", reason.as_str(), state.drops.get(reason)))
    });
    let errors = states.iter().flat_map(|state| {
        let errors: Vec<_> = state.tally().errors.iter().map(|(code, &count)| with(state, "code", code, count)).collect();
        errors
    });
    let nan = states.iter().flat_map(|state| {
        let nan = state.tally().nan;
        [with(state, "arm", "champion", nan.champion), with(state, "arm", "shadow", nan.shadow)]
    });
    vec![
        family("headgate_shadow_dropped_total", "Copies of requests that were drawn for a shadow and not compared: queue_full, bytes (the copies hold too much memory), late (the deadline passed while waiting), cpu_budget (--shadow-cpu), not_ready (out of memory), incompatible (inputs that the version does not take), switched_off, shutdown.", "counter", drops),
        family("headgate_shadow_errors_total", "Runs of a shadow that failed on requests that the champion had answered, by code.", "counter", errors),
        family("headgate_shadow_nan_total", "Compared pairs with a NaN in an output, by the version that has it.", "counter", nan),
    ]
}

#[rustfmt::skip]
fn of_all(registry: &ShadowRegistry) -> Vec<Value> {
    let single = |name: &str, help: &str, kind: &str, value: Value| family(name, help, kind, std::iter::once(json!([{}, value])));
    let threads = registry.threads().counts();
    vec![
        single("headgate_shadow_cpu_budget_cores", "The cores that all shadows together may take (--shadow-cpu).", "gauge", json!(registry.budget().cores())),
        single("headgate_shadow_memory_bytes", "Memory of the copies of requests for all shadows (--shadow-memory).", "gauge", json!(registry.held().used())),
        single("headgate_shadow_threads", "Threads that run shadows.", "gauge", json!(threads.all)),
        single("headgate_shadow_threads_stuck", "Threads that run shadows and are held by a run that was cancelled and does not end.", "gauge", json!(threads.stuck)),
    ]
}

fn run_seconds(state: &ShadowState) -> Value {
    let mut counts = Counts::default();
    state.tally().runs.add_to(&mut counts);
    seconds(&counts)
}
