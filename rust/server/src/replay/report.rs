//! What a person reads of a replay, as JSON.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headgate_core::histogram::{Counts, Histogram};
use serde_json::{Value, json};

use crate::replay::state::{ReplayEnd, ReplayFindings, ReplayState};
use crate::shadow::tally_report::{TallyContext, tally_report};

/// The report on a replay.
pub fn report(replay: &ReplayState) -> Value {
    let findings = replay.findings();
    let ReplayFindings { tally, .. } = &*findings;
    let summary = &replay.summary;
    let (state, finished, error) = end_words(findings.end.as_ref());
    let mut report = json!({
        "id": replay.id,
        "endpoint": summary.version.endpoint,
        "version": summary.version.version,
        "digest": summary.version.digest,
        "against": {"version": summary.against.version, "digest": summary.against.digest},
        "state": state,
        "error": error,
        "started": time(replay.started),
        "finished": finished.map(time),
        "since": summary.span.since_us.map(time_of_us),
        "until": summary.span.until_us.map(time_of_us),
        "max_requests": summary.max_requests,
        "requests": {
            "replayed": findings.replayed,
            "skipped": findings.skipped,
            "incompatible": findings.incompatible,
            "not_ready": findings.not_ready,
        },
        "files_with_other_tensors": summary.other_tensors,
        "run_seconds": {
            "version": quantiles(&tally.runs),
            "again": quantiles(&findings.again_runs),
            "recorded": quantiles(&findings.recorded_runs),
        },
        "cpu_seconds": replay.cpu_ns.load(Relaxed) as f64 / 1e9,
    });
    let context = TallyContext {
        failures: &tally.champion_failed,
        dropped: 0,
        labels: &summary.labels,
        no_floor: summary.no_floor,
    };
    if let Value::Object(report) = &mut report {
        report.extend(tally_report(tally, &context));
    }
    report
}

fn end_words(end: Option<&ReplayEnd>) -> (&'static str, Option<SystemTime>, Option<&str>) {
    match end {
        None => ("running", None, None),
        Some(ReplayEnd::Done(at)) => ("done", Some(*at), None),
        Some(ReplayEnd::Cancelled(at, reason)) => ("cancelled", Some(*at), reason.as_deref()),
        Some(ReplayEnd::Failed(at, reason)) => ("failed", Some(*at), Some(reason)),
    }
}

fn quantiles(histogram: &Histogram) -> Value {
    let mut counts = Counts::default();
    histogram.add_to(&mut counts);
    let quantile = |q| counts.quantile_ns(q).map(|ns| ns as f64 / 1e9);
    json!({"p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99), "runs": counts.total()})
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn time_of_us(us: i64) -> String {
    time(UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or_default()))
}
