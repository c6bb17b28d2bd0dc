//! What a person reads of the shadows of an endpoint, as JSON.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use headgate_core::comparison::{Comparison, RowLabel, Tolerance};
use headgate_core::histogram::Counts;
use headgate_core::rules::FieldName;
use headgate_core::shadow::{DrawBy, ShadowSpec};
use headgate_core::slots::SLOTS;
use headgate_core::stats::agreement::mcnemar;
use headgate_core::stats::proportion::{Interval, Share};
use headgate_engine::Residency;
use serde_json::{Map, Value, json};

use crate::shadow::live_shadow::{ShadowPlan, ShadowState};
use crate::shadow::queue::MAX_LENGTH;
use crate::shadow::registry::{EndpointShadows, ShadowActivity, ShadowEntry, ShadowRegistry};
use crate::shadow::tally::direction::{BoundedCounts, Direction};
use crate::shadow::tally::slices::SliceCounts;
use crate::shadow::tally::{ChampionFailures, RowCounts, Tally};

/// The confidence of all intervals.
const CONFIDENCE: f64 = 0.95;
/// Beyond this share of drops nothing is decided: drops come when the machine is busy, so they are no random part of the pairs.
const MAX_DROP_SHARE: f64 = 0.05;

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
    let dropped = state.drops.total();
    let report = json!({
        "since": time(state.since),
        "drawn": state.drawn.load(Relaxed),
        "pairs": tally.compared.pairs,
        "dropped": state.drops.to_json(),
        "last_mismatch": tally.last_mismatch,
        "errors": tally.errors,
        "timeouts": tally.timeouts,
        "champion_failed": champion_failed(&failures),
        "nan": {"champion": tally.nan.champion, "shadow": tally.nan.shadow, "both": tally.nan.both},
        "compared": row_counts(&tally.compared),
        "outputs": outputs(&tally, plan),
        "disagreement": disagreement(&tally, dropped),
        "noise_floor": noise_floor(&tally, plan),
        "excess": excess(&tally),
        "slices": slices(spec, &tally),
        "examples": {"keep": tally.examples.keep, "kept": tally.examples.kept},
        "run_seconds": run_seconds(&tally),
        "queue": {
            "length": state.queue.len(), "max_length": MAX_LENGTH,
            "bytes": state.queue.bytes().used(), "max_bytes": state.queue.bytes().limit(),
        },
        "in_progress": state.in_progress.load(Relaxed),
        "cpu_seconds": state.cpu_ns.load(Relaxed) as f64 / 1e9,
    });
    match report {
        Value::Object(report) => report,
        _ => Map::new(),
    }
}

fn champion_failed(failed: &ChampionFailures) -> Value {
    json!({
        "requests": failed.requests(),
        "by_code": failed.by_code,
        "shadow_answered": failed.shadow_answered,
        "shadow_failed": failed.shadow_failed,
        "inputs_lost": failed.inputs_lost,
    })
}

fn row_counts(counts: &RowCounts) -> Value {
    json!({
        "pairs": counts.pairs, "differing": counts.differing,
        "rows": counts.rows, "differing_rows": counts.differing_rows,
    })
}

fn outputs(tally: &Tally, plan: Option<&ShadowPlan>) -> Value {
    let pairing = plan.and_then(|plan| plan.pairing.as_ref().ok());
    let outputs = tally.outputs.iter().map(|output| {
        let paired = pairing.and_then(|pairing| pairing.outputs.iter().find(|one| one.name == output.name));
        let mut report = row_counts(&output.counts);
        report["compare"] = comparison(output.comparison);
        report["direction"] = direction(&output.direction, paired.map_or(&[][..], |one| &one.labels));
        (output.name.clone(), report)
    });
    Value::Object(outputs.collect())
}

fn comparison(comparison: Comparison) -> Value {
    match comparison {
        Comparison::Exact => json!({"exact": true}),
        Comparison::Within(Tolerance::Absolute(bound)) => json!({"within": {"absolute": bound}}),
        Comparison::Within(Tolerance::Relative(share)) => json!({"within": {"relative": share}}),
        Comparison::Label => json!({"label": true}),
        Comparison::Threshold(threshold) => json!({"threshold": threshold}),
        Comparison::Top(count) => json!({"top": count}),
    }
}

/// Which label became which; `null` for an output without labels.
fn direction(direction: &Direction, names: &[String]) -> Value {
    if direction.champion.counts.is_empty() {
        return Value::Null;
    }
    let name = |label: &RowLabel| match label {
        RowLabel::NotANumber => "NaN".to_owned(),
        RowLabel::Class(place) => names.get(*place as usize).cloned().unwrap_or_else(|| place.to_string()),
    };
    let mut moves: Vec<_> = direction.moves.counts.iter().collect();
    moves.sort_by_key(|&(labels, &rows)| (std::cmp::Reverse(rows), *labels));
    let moves =
        moves.into_iter().map(|((from, to), rows)| json!({"from": name(from), "to": name(to), "rows": rows}));
    let labels = |counts: &BoundedCounts<RowLabel>| -> BTreeMap<String, u64> {
        counts.counts.iter().map(|(label, &rows)| (name(label), rows)).collect()
    };
    json!({
        "moves": moves.collect::<Vec<_>>(),
        "other_rows": direction.moves.other,
        "labels": {"champion": labels(&direction.champion), "shadow": labels(&direction.shadow)},
        "other_labels": {"champion": direction.champion.other, "shadow": direction.shadow.other},
        "mcnemar_p": direction.both_ways().map(|(one_way, other_way)| mcnemar(one_way, other_way)),
    })
}

fn disagreement(tally: &Tally, dropped: u64) -> Value {
    let pairs = tally.pairs(dropped);
    let shown = share(pairs.disagreement());
    json!({
        "share": shown.0,
        "interval": shown.1,
        "bounds": interval(pairs.bounds()),
        "drop_share": pairs.drop_share(),
        "undecided": pairs.drop_share() > MAX_DROP_SHARE,
    })
}

fn noise_floor(tally: &Tally, plan: Option<&ShadowPlan>) -> Value {
    let floor = tally.floor;
    let shown = share(floor.to_pairs().disagreement());
    let not_run = plan.is_some_and(|plan| plan.pairing.is_ok() && plan.own_pairing.is_none());
    json!({
        "pairs": floor.pairs,
        "differing": floor.differing,
        "share": shown.0,
        "interval": shown.1,
        "skipped": floor.skipped,
        "errors": floor.errors,
        "reason": not_run.then_some("the champion computes on a device, where a second run would hold up requests"),
    })
}

fn excess(tally: &Tally) -> Value {
    let (pairs, floor) = (tally.pairs(0), tally.floor.to_pairs());
    if pairs.compared == 0 || floor.compared == 0 {
        return json!({"share": null, "interval": null});
    }
    let estimate = pairs.disagreement().estimate() - floor.disagreement().estimate();
    json!({"share": estimate, "interval": interval(pairs.excess(floor, CONFIDENCE))})
}

/// A share and its interval; `null` if nothing was counted.
fn share(counted: Share) -> (Option<f64>, Option<Value>) {
    let is_known = counted.total > 0;
    (is_known.then(|| counted.estimate()), is_known.then(|| interval(counted.wilson(CONFIDENCE))))
}

fn interval(interval: Interval) -> Value {
    json!([interval.low, interval.high])
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
