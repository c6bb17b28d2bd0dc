//! The status of an endpoint, its versions and its shadows: placement, runs, faults, what copies have shown.

use headgate_core::error::Result;
use headgate_core::snapshot::Snapshot;
use headgate_engine::Batcher;
use headgate_engine::PlacementDecision;
use serde_json::{Map, Value, json};

use crate::capture::registry::CaptureRegistry;
use crate::serving::probes;
use crate::serving::shared::{LiveEndpoint, Shared};
use crate::serving::version::VersionState;
use crate::serving::version_families::per_version;
use crate::shadow::report::report;

/// The metrics of loading, for each version.
#[rustfmt::skip]
pub fn families(snapshot: &Snapshot<VersionState>) -> [Value; 1] {
    [
        per_version(snapshot, "headgate_version_warnings", "Faults that the load found in a version that is served all the same; `headgate get` shows them.", "gauge", |model| model.load_notes.count() as u64),
    ]
}

/// The status of an endpoint.
pub fn endpoint_status(endpoint: &LiveEndpoint, captures: &CaptureRegistry) -> Value {
    let champion = &endpoint.versions[endpoint.champion as usize].name;
    // The version that answers for a challenger whose breaker is open.
    let instead = endpoint.fallback.champion.then_some(champion);
    let versions: Map<String, Value> = endpoint
        .versions
        .iter()
        .map(|version| {
            let state = &version.payload;
            let runs = state.metrics.counts(|shard| &shard.run);
            let micros = |q| runs.quantile_ns(q).map(|ns| ns as f64 / 1e3);
            let facts = json!({
                "memory": json!({
                    "state": state.model.resident().state().as_str(),
                    "bytes": state.model.resident().bytes(),
                    "pinned": state.is_pinned(),
                }),
                "digest": version.digest,
                "placement": state.model.placement().as_str(),
                "placement_fixed": state.model.placement_policy.is_configured(),
                "placed_by": state.model.placement_policy.last_decision().map(placed_by),
                "device": state.model.device(),
                "note": state.model.load_notes.joined(),
                "shedding": state.model.is_shedding(),
                "breaker": state.breaker.as_ref().map(|breaker| json!({
                    "open": !breaker.is_closed(), "trips": breaker.trips(),
                    "answered_by": (!breaker.is_closed() && instead != Some(&version.name)).then_some(instead).flatten(),
                })),
                "probes": probes::probe_status(&state.model),
                "runs": json!({
                    "in_progress": state.model.run_counters().in_progress(), "cancelled": state.model.run_counters().cancelled(), "stuck": state.model.run_counters().stuck(),
                }),
                "run_us": {"p50": micros(0.5), "p99": micros(0.99)},
                "batches": state.model.batcher().map(batches),
                "load_ms": state.model.load_ns() as f64 / 1e6,
                "signature": state.model.signature(),
                "requests": state.metrics.requests(),
            });
            (version.name.to_string(), facts)
        })
        .collect();
    json!({
        "revision": endpoint.revision,
        "champion": champion,
        "versions": versions,
        "capture": captures.status(&endpoint.name, endpoint.capture.as_ref()),
    })
}

/// The report on the shadows of an endpoint.
///
/// # Errors
/// `model_not_found`.
pub fn shadow_report(shared: &Shared, endpoint: &str) -> Result<Value> {
    let snapshot = shared.snapshot.load();
    let champion = match snapshot.unloaded.get(endpoint) {
        Some(spec) => spec.champion.clone(),
        None => {
            let live = snapshot.endpoint(endpoint)?;
            live.versions[usize::from(live.champion)].name.to_string()
        }
    };
    Ok(report(&shared.shadows, endpoint, &champion))
}

/// The measurements that decided the placement.
fn placed_by(decided: PlacementDecision) -> Value {
    let PlacementDecision { reason, runs, p99_ns, busy, batch_rows } = decided;
    json!({"why": reason, "runs": runs, "p99_us": p99_ns as f64 / 1e3, "busy": busy, "batch_rows": batch_rows})
}

/// The sizes and costs of the batches.
fn batches(batcher: &Batcher) -> Value {
    let sizes = batcher.size_stats();
    let (count, rows) = sizes
        .iter()
        .fold((0, 0), |(count, rows), (size, of)| (count + of.count, rows + *size as u64 * of.count));
    let cost = batcher.cost().map(|cost| json!({"fixed": cost.fixed_ns / 1e3, "row": cost.row_ns / 1e3}));
    json!({"max_batch": batcher.max_batch(), "count": count, "rows": rows, "cost_us": cost})
}
