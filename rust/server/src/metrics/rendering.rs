//! Renders the counters for the control plane: the families of metrics, and the totals of each version.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use headgate_core::error::Code;
use headgate_core::fine_histogram::{FINE_BUCKETS, FineCounts, fine_upper_ns};
use headgate_core::histogram::{Counts, FIRST, Histogram, LAST, upper_ns};
use headgate_engine::Instant;
use serde_json::{Map, Value, json};

use super::close_reason::CloseReason;
use super::{Metrics, OUTCOMES, Shard, VersionMetrics};

/// Values that other parts of the gateway have.
pub struct Gauges {
    /// The snapshot's generation.
    pub generation: u64,
    /// Runs that wait for a pool thread.
    pub waiting: usize,
    /// Bytes held by sketches.
    pub sketch_bytes: usize,
    /// Lines that the access log dropped.
    pub log_dropped: u64,
}

/// The totals of each version that is served, from which the control plane computes the figures of the last minutes:
///
/// ```json
/// {"upper_ns": [1, ..., null], "versions": [
///     {"endpoint": "e", "version": "v", "codes": {"ok": 3}, "durations": [[12, 3]], "seen": 3, "sketched": 3}]}
/// ```
/// `durations` has the buckets that are not empty, by their index in `upper_ns`.
pub fn totals(metrics: &Metrics, now: Instant) -> Value {
    let versions = metrics.visible(now).into_iter().map(|version| {
        let codes: Map<String, Value> = (0..OUTCOMES)
            .map(|index| (outcome_name(index), version.sum(|shard| shard.outcomes[index].get())))
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect();
        let durations: Vec<_> = version.total_counts().counts.into_iter().collect();
        json!({
            "endpoint": version.endpoint,
            "version": version.version,
            "codes": codes,
            "durations": durations,
            "seen": version.sum(|shard| shard.rows_seen.get()),
            "sketched": version.sum(|shard| shard.rows_sampled.get()),
        })
    });
    json!({
        "upper_ns": (0..FINE_BUCKETS).map(fine_upper_ns).collect::<Vec<_>>(),
        "versions": versions.collect::<Vec<_>>(),
    })
}

/// Every family with its samples.
pub fn families(metrics: &Metrics, gauges: &Gauges, now: Instant) -> Vec<Value> {
    let live = metrics.visible(now);
    let mut families = vec![requests(&live), refusals(metrics)];
    families.extend(counters(&live));
    families.extend(durations(&live));
    families.extend(gateway_families(metrics, gauges));
    families
}

fn counter(live: &[Arc<VersionMetrics>], name: &str, help: &str, read: fn(&Shard) -> u64) -> Value {
    family(name, help, "counter", live.iter().map(|version| json!([labels(version), version.sum(read)])))
}

/// A family. Its samples are pairs of labels and a value.
pub fn family(name: &str, help: &str, kind: &str, samples: impl Iterator<Item = Value>) -> Value {
    json!({"name": name, "help": help, "type": kind, "samples": samples.collect::<Vec<_>>()})
}

/// The counters of each version.
#[rustfmt::skip]
fn counters(live: &[Arc<VersionMetrics>]) -> Vec<Value> {
    let counter = |name, help, read| counter(live, name, help, read);
    let seconds = live.iter().map(|v| json!([labels(v), v.sum(|s| s.success_ns.get()) as f64 / 1e9]));
    let in_flight = live.iter().map(|v| json!([labels(v), v.in_flight()]));
    vec![
        counter("headgate_rows_total", "Rows of successful responses.", |s| s.rows.get()),
        family("headgate_request_success_seconds_total", "Time of successful requests, from the first byte of the request to the last of the response.", "counter", seconds),
        counter("headgate_requests_direct_total", "Requests that named the version; gates and drift leave them out.", |s| s.direct.get()),
        counter("headgate_requests_by_rule_total", "Requests that a rule sent to the version (traffic.rules); gates leave them out.", |s| s.by_rule.get()),
        counter("headgate_requests_hopeless_total", "Requests refused before any work, because less time was left than a run takes.", |s| s.hopeless.get()),
        counter("headgate_requests_passed_on_total", "Requests that another version answered (traffic.fallback), on the version that did not.", |s| s.passed_on.get()),
        counter("headgate_requests_fallback_total", "Requests that this version answered in place of another; gates and drift leave them out.", |s| s.fallback.get()),
        counter("headgate_requests_undelivered_total", "Responses whose client left before the bytes were with the socket.", |s| s.undelivered.get()),
        family("headgate_requests_in_flight", "Requests that have begun and not finished.", "gauge", in_flight),
        counter("headgate_runs_total", "Runs of the model; a batch is one.", |s| s.runs.get()),
        counter("headgate_tap_rows_seen_total", "Rows that sketching saw.", |s| s.rows_seen.get()),
        counter("headgate_tap_rows_sampled_total", "Rows that were sketched.", |s| s.rows_sampled.get()),
        counter("headgate_tap_rows_dropped_total", "Rows that were not sketched, because the memory limit was reached.", |s| s.rows_dropped.get()),
    ]
}

/// The durations of the phases, for each version.
#[rustfmt::skip]
fn durations(live: &[Arc<VersionMetrics>]) -> [Value; 5] {
    let histogram = |name: &str, help: &str, read: fn(&Shard) -> &Histogram| {
        family(name, help, "histogram", live.iter().map(|v| json!([labels(v), seconds(&v.counts(read))])))
    };
    let total = live.iter().map(|v| json!([labels(v), fine_seconds(&v.total_counts())]));
    [
        family("headgate_request_duration_seconds", "From the first byte of the request to the last of the response.", "histogram", total),
        histogram("headgate_decode_duration_seconds", "From the bytes of the body to typed values.", |s| &s.decode),
        histogram("headgate_queue_duration_seconds", "The wait for a pool thread; inline runs do not wait.", |s| &s.queue),
        histogram("headgate_run_duration_seconds", "The run of the model, for each request that was part of it.", |s| &s.run),
        histogram("headgate_reply_duration_seconds", "From the end of the run until the bytes are with the socket.", |s| &s.reply),
    ]
}

/// The metrics that belong to no version.
#[rustfmt::skip]
fn gateway_families(metrics: &Metrics, gauges: &Gauges) -> Vec<Value> {
    let accepted = metrics.threads.iter().map(|thread| thread.accepted.get()).sum();
    let refused = metrics.connections_refused.load(Relaxed);
    vec![
        single("headgate_connections", "Open connections.", "gauge", metrics.connections()),
        single("headgate_connections_accepted_total", "Connections taken over by an IO thread.", "counter", accepted),
        single("headgate_connections_refused_total", "Connections closed at once, because there were too many and none could be closed for them.", "counter", refused),
        single("headgate_connections_crowded_total", "Connections that waited for their client and were closed to make room for new ones.", "counter", metrics.connections_closed.get(CloseReason::Crowded)),
        single("headgate_connections_unread_total", "Connections closed because their client did not read its responses for the idle time-out.", "counter", metrics.connections_closed.get(CloseReason::Unread)),
        family("headgate_connections_closed_total", "Connections that the data ports closed before their clients did: idle, head_timeout, body_timeout, body_too_large, unread (the client does not read its responses), or crowded (to make room for a new one).", "counter", metrics.connections_closed.samples()),
        family("headgate_connections_handed_over_total", "Connections of HTTP/1.1 that were handed to hyper for good, which costs more for each request: head (no whole head, or a long one), request (chunks, escapes, a long body), body (it did not arrive together with its head).", "counter", metrics.handed_over.samples()),
        single("headgate_pool_waiting", "Runs that wait for a pool thread.", "gauge", gauges.waiting as u64),
        single("headgate_sketch_bytes", "Memory of sketches: counters of the threads, windows, plans and baselines (--sketch-memory).", "gauge", gauges.sketch_bytes as u64),
        single("headgate_access_log_dropped_total", "Lines that the access log had no room for or could not write.", "counter", gauges.log_dropped),
        single("headgate_snapshot_generation", "The generation of the snapshot that is served.", "gauge", gauges.generation),
    ]
}

fn labels(version: &VersionMetrics) -> Value {
    json!({"endpoint": version.endpoint, "version": version.version})
}

fn single(name: &str, help: &str, kind: &str, value: u64) -> Value {
    json!({"name": name, "help": help, "type": kind, "samples": [[{}, value]]})
}

fn requests(live: &[Arc<VersionMetrics>]) -> Value {
    let mut samples = Vec::new();
    for version in live {
        for index in 0..OUTCOMES {
            let count = version.sum(|shard| shard.outcomes[index].get());
            if count > 0 || index == 0 {
                let mut labels = labels(version);
                labels["code"] = json!(outcome_name(index));
                samples.push(json!([labels, count]));
            }
        }
    }
    json!({"name": "headgate_requests_total", "help": "Inference requests by the version that answered and the code.",
        "type": "counter", "samples": samples})
}

fn refusals(metrics: &Metrics) -> Value {
    let samples = (1..OUTCOMES)
        .map(|index| (index, metrics.threads.iter().map(|thread| thread.refusals[index].get()).sum::<u64>()))
        .filter(|(_, count)| *count > 0)
        .map(|(index, count)| json!([{"code": outcome_name(index)}, count]))
        .collect::<Vec<_>>();
    json!({"name": "headgate_requests_refused_total", "help": "Requests refused before a version was chosen, by code.",
        "type": "counter", "samples": samples})
}

fn outcome_name(index: usize) -> &'static str {
    if index == 0 { "ok" } else { Code::ALL[index - 1].as_str() }
}

/// As [`seconds`], with the same bounds.
fn fine_seconds(counts: &FineCounts) -> Value {
    let below = counts.below_powers(FIRST, LAST).into_iter();
    let buckets: Vec<_> = below.map(|(bound, below)| json!([bound as f64 / 1e9, below])).collect();
    json!({"buckets": buckets, "sum": counts.sum_ns as f64 / 1e9, "count": counts.total()})
}

/// A histogram in the form of Prometheus: cumulative, with bounds in seconds, and a bucket for each power of two.
pub fn seconds(counts: &Counts) -> Value {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (index, count) in counts.counts.iter().enumerate() {
        cumulative += count;
        if let Some(bound) = upper_ns(index).filter(|bound| bound.is_power_of_two()) {
            buckets.push(json!([bound as f64 / 1e9, cumulative]));
        }
    }
    json!({"buckets": buckets, "sum": counts.sum_ns as f64 / 1e9, "count": cumulative})
}
