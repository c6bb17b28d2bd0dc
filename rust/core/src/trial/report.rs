//! A ledger as it is told: JSON with names in place of numbers, and what follows from the counters.
//!
//! Not here: the state as it is stored (`ledger`, which is written as it is).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::counts::{ERRORS, OUTCOMES, TrialCount};
use super::erring::ErringUnits;
use super::feedback::FeedbackLedger;
use super::ledger::{ArmLedger, ArmName, FirstError, Ledger, MinuteRow};
use super::output_ledger::OutputLedger;
use super::units::Side;
use crate::feedback::moments::Moments;
use crate::fine_histogram::{FineCounts, fine_upper_ns};

/// The form in which a trial is told. It grows with each change that a reader of the one before would misunderstand.
pub const FORMAT: u64 = 1;

/// What is known of a trial beside its ledger.
#[derive(Clone, Debug, Default)]
pub struct RunningTrial {
    /// The present time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The split that is served, if one is.
    pub split: Option<u8>,
    /// For each arm the requests in progress that are slower than the threshold, and those that were not watched.
    pub running_slower: BTreeMap<u8, (u64, u64)>,
    /// Bytes of the units.
    pub unit_bytes: usize,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The totals of each arm.
    Summary,
    /// Splits, minutes and first errors as well.
    Whole,
}

impl Ledger {
    /// The ledger as it is told.
    pub fn report(&self, running: &RunningTrial, detail: Detail) -> Value {
        let totals = self.totals();
        let arms: Vec<Value> = totals
            .iter()
            .enumerate()
            .map(|(arm, total)| self.arm_report(arm as u8, total, running))
            .collect();
        let unit = if self.identity.sticky.is_some() { "sticky_key" } else { "request" };
        let mut report = json!({
            "format": FORMAT, "attempt": self.identity.attempt, "champion": self.identity.champion,
            "sticky": self.identity.sticky, "unit": unit,
            "begun_ms": self.begun_ms, "ended_ms": self.ended_ms, "as_of_ms": running.now_ms,
            "written_ms": self.written_ms, "arms": arms, "unit_bytes": running.unit_bytes,
            "window": self.window_report(),
            "feedback": self.feedback.iter().map(|feedback| self.feedback_report(feedback, detail)).collect::<Vec<_>>(),
            "outputs": self.outputs.as_ref().map(|outputs| self.outputs_report(outputs, detail)),
            "gaps": self.gaps.iter().map(|gap| json!({"from_ms": gap.from_ms, "to_ms": gap.to_ms})).collect::<Vec<_>>(),
            "gaps_dropped": self.gaps_dropped,
            "minutes_dropped": self.rows_dropped, "first_errors_dropped": self.events_dropped,
        });
        if detail == Detail::Whole {
            report["splits"] = self
                .splits
                .iter()
                .map(|split| {
                    json!({
                        "slots": self.by_name(&split.slots, |slots| json!(slots)),
                        "arms": self.by_name(&split.arms, split_arm_report),
                    })
                })
                .collect();
            report["minutes"] = self.rows.iter().map(|row| self.row_report(row)).collect();
            report["first_errors"] = self.events.iter().map(|event| self.event_report(event)).collect();
        }
        report
    }

    fn arm_report(&self, arm: u8, total: &ArmLedger, running: &RunningTrial) -> Value {
        let name = &self.arms[usize::from(arm)];
        let slots = running.split.and_then(|split| self.splits.get(usize::from(split))?.slots.get(&arm));
        let side = match Self::side(arm) {
            Side::Champion => "champion",
            Side::Challenger => "challenger",
        };
        let output = |output: u8| match name.outputs.get(usize::from(output)) {
            Some(name) if usize::from(output) < super::non_finite::OUTPUT_BITS - 1 => name.clone(),
            _ => "(further outputs)".to_owned(),
        };
        let nan: Map<String, Value> =
            total.nan.iter().map(|(number, count)| (output(*number), json!(count))).collect();
        let (slower, unwatched) = running.running_slower.get(&arm).copied().unwrap_or_default();
        let mut report = counts_report(total);
        report["version"] = json!(name.version);
        report["digest"] = json!(name.digest);
        report["side"] = json!(side);
        report["slots"] = json!(slots);
        report["erring_units"] = json!(self.erring.get(&arm).map(ErringUnits::share).unwrap_or_default());
        report["nan_by_output"] = Value::Object(nan);
        report["run"] = durations_report(&total.run);
        report["reply"] = durations_report(&total.reply);
        report["exceedances"] = json!({
            "compared": total.exceedances.compared, "slower_run": total.exceedances.slower_run,
            "slower_reply": total.exceedances.slower_reply, "running_slower_reply": slower, "unwatched": unwatched,
        });
        report
    }

    fn feedback_report(&self, feedback: &FeedbackLedger, detail: Detail) -> Value {
        let arms: Map<String, Value> = self
            .arms
            .iter()
            .enumerate()
            .map(|(number, arm)| {
                let (number, Moments { n, sum, squares }) = (number as u8, feedback.total(number as u8));
                let repeated = feedback.repeated.get(&number).copied().unwrap_or(0);
                (arm.version.clone(), json!({"n": n, "sum": sum, "squares": squares, "repeated": repeated}))
            })
            .collect();
        let mut report = json!({
            "name": feedback.name, "range": feedback.range, "good": feedback.good, "coverage": feedback.coverage,
            "within_ms": feedback.within_ms, "arms": arms, "dropped": feedback.dropped,
        });
        if detail == Detail::Whole {
            let strata = feedback.strata.iter().map(|stratum| {
                let arms = self.by_name(&stratum.arms, |sums| json!(sums));
                let repeated = self.by_name(&stratum.repeated, |count| json!(count));
                json!({"hour": stratum.hour, "split": stratum.split, "arms": arms, "repeated": repeated})
            });
            report["strata"] = strata.collect();
        }
        report
    }

    fn outputs_report(&self, outputs: &OutputLedger, detail: Detail) -> Value {
        let features = outputs.features.iter().map(|feature| {
            let values = |(number, arm): (usize, &ArmName)| (arm.version.clone(), json!(feature.values(number as u8)));
            let values: Map<String, Value> = self.arms.iter().enumerate().map(values).collect();
            let mut told = json!({"output": feature.output, "column": feature.column, "bins": feature.bins(), "values": values});
            if detail == Detail::Whole {
                told["sums"] = self.by_name(&feature.sums, |sums| json!(sums));
            }
            told
        });
        json!({"features": features.collect::<Vec<_>>(), "left_out": outputs.left_out})
    }

    fn window_report(&self) -> Value {
        let Some(window) = &self.window else { return Value::Null };
        let thresholds = self.arms.iter().zip(&window.thresholds);
        let thresholds: Map<String, Value> = thresholds
            .map(|(arm, (run_ns, reply_ns))| {
                (arm.version.clone(), json!({"run_ns": run_ns, "reply_ns": reply_ns}))
            })
            .collect();
        json!({"number": window.number, "opened_ms": window.opened_ms, "thresholds": thresholds})
    }

    fn row_report(&self, row: &MinuteRow) -> Value {
        let arms = self.by_name(&row.arms, |counts| json!(counts));
        json!({"minute": row.minute, "minutes": row.minutes, "split": row.split, "window": row.window, "arms": arms})
    }

    fn event_report(&self, event: &FirstError) -> Value {
        let version = &self.arms[usize::from(event.arm)].version;
        json!({
            "at_ms": event.at_ms, "split": event.split, "version": version, "code": event.code,
            "after_split": event.after,
        })
    }

    /// The values by the names of their arms.
    fn by_name<T>(&self, values: &BTreeMap<u8, T>, told: impl Fn(&T) -> Value) -> Value {
        let named =
            values.iter().map(|(arm, value)| (self.arms[usize::from(*arm)].version.clone(), told(value)));
        Value::Object(named.collect())
    }
}

fn split_arm_report(arm: &ArmLedger) -> Value {
    let mut report = counts_report(arm);
    report["run"] = durations_report(&arm.run);
    report["reply"] = durations_report(&arm.reply);
    report["exceedances"] = json!(arm.exceedances);
    report
}

/// The counters, and the sums of those that are told together.
fn counts_report(arm: &ArmLedger) -> Value {
    let counts = &arm.counts;
    let group = |group: &[TrialCount]| -> Map<String, Value> {
        group.iter().map(|&count| (count.as_str().to_owned(), json!(counts.get(count)))).collect()
    };
    let apart = [TrialCount::ByRule, TrialCount::Direct, TrialCount::Fallback, TrialCount::ClientMistakes];
    let nan =
        [TrialCount::Answers, TrialCount::NanAnswers, TrialCount::InfiniteAnswers, TrialCount::UnseenAnswers];
    let units = [
        TrialCount::FirstRequests,
        TrialCount::Units,
        TrialCount::FirstErrors,
        TrialCount::FirstErrorsAfter,
        TrialCount::UnplacedErrors,
    ];
    let mut report = group(&OUTCOMES);
    report.extend(group(&units));
    report.extend(group(&nan));
    report.extend(group(&[TrialCount::PassedOn, TrialCount::Unwritable, TrialCount::Unsettled]));
    report.insert("routed".to_owned(), json!(counts.routed()));
    report.insert("in_flight".to_owned(), json!(counts.in_flight()));
    report.insert("errors".to_owned(), json!(counts.errors()));
    report.insert("codes".to_owned(), Value::Object(group(&ERRORS)));
    report.insert("apart".to_owned(), Value::Object(group(&apart)));
    Value::Object(report)
}

/// The number of durations, their quantiles in nanoseconds, and the buckets that are not empty by their upper bound.
fn durations_report(counts: &FineCounts) -> Value {
    let buckets =
        counts.counts.iter().map(|(&bucket, count)| json!([fine_upper_ns(usize::from(bucket)), count]));
    json!({
        "count": counts.total(), "sum_ns": counts.sum_ns,
        "p50_ns": counts.quantile_ns(0.5), "p95_ns": counts.quantile_ns(0.95), "p99_ns": counts.quantile_ns(0.99),
        "buckets": buckets.collect::<Vec<_>>(),
    })
}
