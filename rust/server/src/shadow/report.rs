//! What a person reads of the shadows of an endpoint, as JSON.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use headgate_core::histogram::Counts;
use headgate_core::rules::FieldName;
use headgate_core::shadow::{DrawBy, ShadowSpec};
use headgate_core::slots::SLOTS;
use headgate_core::stats::proportion::Share;
use headgate_engine::Instant;
use headgate_engine::Residency;
use serde_json::{Map, Value, json};

use crate::shadow::live_shadow::{ShadowPlan, ShadowState};
use crate::shadow::queue::MAX_LENGTH;
use crate::shadow::registry::{EndpointShadows, ShadowActivity, ShadowEntry, ShadowRegistry};
use crate::shadow::tally::Tally;
use crate::shadow::tally::slices::SliceCounts;
use crate::shadow::tally_report::{TallyContext, share, tally_report};

/// Why there is no noise floor.
const ON_A_DEVICE: &str = "the champion computes on a device, where a second run would hold up requests";

/// The report on the shadows of an endpoint whose champion is `champion`.
pub fn report(registry: &ShadowRegistry, endpoint: &str, champion: &str) -> Value {
    let now = Instant::now();
    let entries = |shadows: &EndpointShadows| -> Vec<Value> { shadows.entries.iter().map(entry).collect() };
    let shadows = registry.read(endpoint, entries).unwrap_or_default();
    let (budget, threads) = (registry.budget(), registry.threads().counts());
    json!({
        "endpoint": endpoint,
        "champion": champion,
        "cpu": {
            "budget_cores": budget.cores(),
            "used_cores": budget.used_cores(now),
            "waiting": budget.has_waited_lately(now),
            "threads": threads.all,
            "stuck": threads.stuck,
        },
        "memory": {"bytes": registry.held().used(), "max_bytes": registry.held().limit()},
        "shadows": shadows,
    })
}

fn entry(entry: &ShadowEntry) -> Value {
    let ShadowEntry { spec, state, activity } = entry;
    let (word, reason) = activity_words(activity);
    let mut report = json!({
        "to": spec.to,
        "share": f64::from(spec.share) / SLOTS as f64,
        "by": match spec.by { DrawBy::Request => "request", DrawBy::Sticky => "sticky" },
        "state": word,
        "reason": reason,
    });
    let plan = match activity {
        ShadowActivity::Live(plan) => Some(&**plan),
        ShadowActivity::Idle(_) | ShadowActivity::Unloaded => None,
    };
    if let (Value::Object(report), Some(state)) = (&mut report, state) {
        report.extend(counts(spec, state, plan));
    }
    report
}

/// Whether a shadow runs, as a word, and why it does not.
fn activity_words(activity: &ShadowActivity) -> (&'static str, Option<String>) {
    match activity {
        ShadowActivity::Idle(idle) => (idle.state.as_str(), Some(idle.reason.clone())),
        ShadowActivity::Unloaded => {
            ("not_loaded", Some("the endpoint was unloaded over the protocol".to_owned()))
        }
        ShadowActivity::Live(plan) => match (&plan.pairing, plan.model.resident().state()) {
            (Err(mismatch), _) => ("incompatible", Some(mismatch.clone())),
            (Ok(_), Residency::Warm) => ("running", None),
            (Ok(_), _) => {
                let words = "its version is out of memory, and is not fetched for a shadow";
                ("not_loaded", Some(words.to_owned()))
            }
        },
    }
}

fn counts(spec: &ShadowSpec, state: &ShadowState, plan: Option<&ShadowPlan>) -> Map<String, Value> {
    let failures = state.champion_failures();
    let tally = state.tally();
    let context = TallyContext {
        failures: &failures,
        dropped: state.drops.total(),
        labels: &plan.map(labels).unwrap_or_default(),
        no_floor: plan.filter(|plan| plan.pairing.is_ok() && plan.own_pairing.is_none()).map(|_| ON_A_DEVICE),
    };
    let mut report = tally_report(&tally, &context);
    let own = json!({
        "since": time(state.since),
        "drawn": state.drawn.load(Relaxed),
        "dropped": state.drops.to_json(),
        "slices": slices(spec, &tally),
        "examples": {"keep": tally.examples.keep, "kept": tally.examples.newest_first()},
        "run_seconds": run_seconds(&tally),
        "queue": {
            "length": state.queue.len(), "max_length": MAX_LENGTH,
            "bytes": state.queue.bytes().used(), "max_bytes": state.queue.bytes().limit(),
        },
        "in_progress": state.in_progress.load(Relaxed),
        "cpu_seconds": state.cpu_ns.load(Relaxed) as f64 / 1e9,
    });
    if let Value::Object(own) = own {
        report.extend(own);
    }
    report
}

/// The names of the classes of each output.
fn labels(plan: &ShadowPlan) -> Vec<(String, Vec<String>)> {
    let outputs = plan.pairing.as_ref().map_or(&[][..], |pairing| &pairing.outputs);
    outputs.iter().map(|output| (output.name.clone(), output.labels.clone())).collect()
}

fn slices(spec: &ShadowSpec, tally: &Tally) -> Value {
    let fields = spec.slices.iter().zip(&tally.slices.fields).map(|(field, tally)| {
        let mut values: Vec<_> = tally.values.iter().collect();
        values.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.pairs));
        let values = values.into_iter().map(|(value, counts)| {
            let mut report = slice(*counts);
            report["value"] = json!(value);
            report
        });
        json!({
            "field": match field {
                FieldName::Header(name) => format!("header.{name}"),
                FieldName::Parameter(name) => format!("parameter.{name}"),
            },
            "values": values.collect::<Vec<_>>(),
            "other": slice(tally.other),
        })
    });
    Value::Array(fields.collect())
}

fn slice(counts: SliceCounts) -> Value {
    let shown = share(Share { events: counts.differing, total: counts.pairs });
    json!({"pairs": counts.pairs, "differing": counts.differing, "share": shown.0, "interval": shown.1})
}

fn run_seconds(tally: &Tally) -> Value {
    let mut counts = Counts::default();
    tally.runs.add_to(&mut counts);
    let quantile = |q| counts.quantile_ns(q).map(|ns| ns as f64 / 1e9);
    json!({
        "p50": quantile(0.5),
        "p95": quantile(0.95),
        "runs": counts.total(),
        "comparable": false,
        "note": "shadows run at the lowest priority, so their run times say nothing beside the champion's",
    })
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
