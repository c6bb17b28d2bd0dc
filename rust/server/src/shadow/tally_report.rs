//! What a tally says, as JSON: of a shadow and of a replay in the same words.

use std::collections::BTreeMap;

use headgate_core::comparison::{Comparison, RowLabel, Tolerance};
use headgate_core::paired_outputs::PairedOutputs;
use headgate_core::stats::agreement::mcnemar;
use headgate_core::stats::proportion::{Interval, Share};
use serde_json::{Map, Value, json};

use crate::shadow::tally::direction::{BoundedCounts, Direction};
use crate::shadow::tally::{ChampionFailures, RowCounts, Tally};

/// The confidence of all intervals.
const CONFIDENCE: f64 = 0.95;
/// Beyond this share of drops nothing is decided: drops come when the machine is busy, so they are no random part of the pairs.
const MAX_DROP_SHARE: f64 = 0.05;

/// What a report needs beside the tally.
pub struct TallyContext<'a> {
    /// The requests that the version that was asked failed on.
    pub failures: &'a ChampionFailures,
    /// Pairs that were dropped.
    pub dropped: u64,
    /// The names of the classes of each output.
    pub labels: &'a [(String, Vec<String>)],
    /// Why there is no noise floor.
    pub no_floor: Option<&'a str>,
}

/// The counts of a tally, with shares and intervals.
pub fn tally_report(tally: &Tally, context: &TallyContext<'_>) -> Map<String, Value> {
    let labels = |name: &str| {
        let found = context.labels.iter().find(|(output, _)| output == name);
        found.map_or(&[][..], |(_, labels)| &labels[..])
    };
    let report = json!({
        "pairs": tally.compared.pairs,
        "last_mismatch": tally.last_mismatch,
        "errors": tally.errors,
        "timeouts": tally.timeouts,
        "champion_failed": champion_failed(context.failures),
        "nan": {"champion": tally.nan.champion, "shadow": tally.nan.shadow, "both": tally.nan.both},
        "compared": row_counts(&tally.compared),
        "outputs": outputs(tally, labels),
        "disagreement": disagreement(tally, context.dropped),
        "noise_floor": noise_floor(tally, context.no_floor),
        "excess": excess(tally),
        "output_drift": tally.paired.as_ref().map(PairedOutputs::report),
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

fn outputs<'a>(tally: &Tally, labels: impl Fn(&str) -> &'a [String]) -> Value {
    let outputs = tally.outputs.iter().map(|output| {
        let mut report = row_counts(&output.counts);
        report["compare"] = comparison(output.comparison);
        report["direction"] = direction(&output.direction, labels(&output.name));
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

fn noise_floor(tally: &Tally, not_run: Option<&str>) -> Value {
    let floor = tally.floor;
    let shown = share(floor.to_pairs().disagreement());
    json!({
        "pairs": floor.pairs,
        "differing": floor.differing,
        "share": shown.0,
        "interval": shown.1,
        "skipped": floor.skipped,
        "errors": floor.errors,
        "reason": not_run,
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
pub(super) fn share(counted: Share) -> (Option<f64>, Option<Value>) {
    let is_known = counted.total > 0;
    (is_known.then(|| counted.estimate()), is_known.then(|| interval(counted.wilson(CONFIDENCE))))
}

fn interval(interval: Interval) -> Value {
    json!([interval.low, interval.high])
}
