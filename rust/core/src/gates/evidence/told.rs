//! Evidence from the report of a trial, told in JSON with all of its minutes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    ArmTotals, Damage, Evidence, FeedbackEvidence, OutputEvidence, Row, Split, Stratum, UnitKind, place_of,
    slots_of, sums_of,
};
use crate::feedback::declared::{Good, Range};
use crate::feedback::moments::Moments;
use crate::fine_histogram::FineCounts;
use crate::gates::durations::{Durations, Times};
use crate::stats::difference_sequence::DifferenceSums;
use crate::trial::ledger::RowCounts;
use crate::trial::outputs::MAX_BINS;
use crate::trial::report::FORMAT;

impl Evidence {
    /// The evidence of a trial's report, told with all of its minutes, and the durations in it; or that of the copies of a shadow, which
    /// has outputs and nothing else.
    ///
    /// # Errors
    /// Why it cannot be judged.
    pub fn from_json(json: &str, challenger: &str) -> Result<(Evidence, Durations), Damage> {
        #[derive(Deserialize)]
        struct Told {
            format: Option<u64>,
            pairs: Option<serde::de::IgnoredAny>,
        }
        let unreadable = |error: serde_json::Error| format!("the evidence cannot be read: {error}");
        let told: Told = serde_json::from_str(json).map_err(unreadable)?;
        if told.format != Some(FORMAT) {
            let format = told.format.map_or("no format".to_owned(), |format| format!("format {format}"));
            return Err(format!("the evidence has {format}, and format {FORMAT} is judged here"));
        }
        if told.pairs.is_some() {
            let told: ToldPairs = serde_json::from_str(json).map_err(unreadable)?;
            return Ok((told.evidence(challenger)?.checked()?, Durations::default()));
        }
        let told: ToldTrial = serde_json::from_str(json).map_err(unreadable)?;
        let (evidence, durations) = told.evidence(challenger)?;
        Ok((evidence.checked()?, durations))
    }
}

#[derive(Deserialize)]
struct ToldTrial {
    attempt: String,
    champion: String,
    unit: String,
    as_of_ms: u64,
    arms: Vec<ToldArm>,
    splits: Vec<ToldSplit>,
    minutes: Vec<ToldRow>,
    minutes_dropped: u64,
    window: Option<ToldWindow>,
    #[serde(default)]
    feedback: Vec<ToldFeedback>,
    #[serde(default)]
    outputs: Option<ToldOutputs>,
}

#[derive(Default, Deserialize)]
struct ToldOutputs {
    features: Vec<ToldOutput>,
    left_out: usize,
}

#[derive(Deserialize)]
struct ToldOutput {
    output: String,
    column: String,
    bins: usize,
    values: BTreeMap<String, u64>,
    sums: BTreeMap<String, DifferenceSums>,
}

#[derive(Deserialize)]
struct ToldFeedback {
    name: String,
    range: Range,
    good: Good,
    #[serde(default)]
    coverage: Option<u16>,
    #[serde(default)]
    within_ms: u64,
    #[serde(default)]
    dropped: u64,
    arms: BTreeMap<String, ToldFeedbackArm>,
    strata: Vec<ToldStratum>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct ToldFeedbackArm {
    repeated: u64,
}

#[derive(Deserialize)]
struct ToldStratum {
    hour: u32,
    split: usize,
    arms: BTreeMap<String, Moments>,
    #[serde(default)]
    repeated: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct ToldArm {
    version: String,
    #[serde(flatten)]
    totals: ArmTotals,
    run: ToldTimes,
    reply: ToldTimes,
    exceedances: ToldExceedances,
}

#[derive(Deserialize)]
struct ToldExceedances {
    running_slower_reply: u64,
}

#[derive(Deserialize)]
struct ToldTimes {
    count: u64,
    sum_ns: u64,
    p95_ns: Option<u64>,
    buckets: Vec<(Option<u64>, u64)>,
}

#[derive(Deserialize)]
struct ToldSplit {
    slots: BTreeMap<String, u16>,
    arms: BTreeMap<String, ToldSplitArm>,
}

#[derive(Deserialize)]
struct ToldSplitArm {
    run: ToldTimes,
    reply: ToldTimes,
}

#[derive(Deserialize)]
struct ToldRow {
    minute: u64,
    minutes: u16,
    split: usize,
    window: u32,
    arms: BTreeMap<String, RowCounts>,
}

#[derive(Deserialize)]
struct ToldWindow {
    thresholds: BTreeMap<String, ToldThresholds>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct ToldThresholds {
    run_ns: u64,
    reply_ns: u64,
}

impl ToldRow {
    fn of(mut self, pair: &[String; 2]) -> Row {
        Row {
            minute: self.minute,
            minutes: self.minutes,
            split: self.split,
            window: self.window,
            arms: pair.each_ref().map(|name| self.arms.remove(name).unwrap_or_default()),
        }
    }
}

impl ToldSplitArm {
    fn times(&self) -> Times {
        let runs = self.run.count;
        Times {
            runs,
            mean_run_ns: if runs == 0 { 0.0 } else { self.run.sum_ns as f64 / runs as f64 },
            run_p95_ns: self.run.p95_ns,
            reply_p95_ns: self.reply.p95_ns,
        }
    }
}

impl ToldTimes {
    fn counts(&self) -> FineCounts {
        FineCounts::from_uppers(self.buckets.iter().copied(), self.sum_ns)
    }
}

impl ToldFeedback {
    fn evidence(self, pair: &[String; 2]) -> FeedbackEvidence {
        let strata = self.strata.into_iter().map(|mut stratum| Stratum {
            hour: stratum.hour,
            split: stratum.split,
            arms: pair.each_ref().map(|name| stratum.arms.remove(name).unwrap_or_default()),
            repeated: pair.each_ref().map(|name| stratum.repeated.remove(name).unwrap_or_default()),
        });
        FeedbackEvidence {
            coverage: self.coverage,
            within_ms: self.within_ms,
            strata: strata.collect(),
            dropped: self.dropped,
            repeated: pair.each_ref().map(|name| self.arms.get(name).copied().unwrap_or_default().repeated),
            name: self.name,
            range: self.range,
            good: self.good,
        }
    }
}

impl ToldOutput {
    fn evidence(mut self, pair: &[String; 2]) -> OutputEvidence {
        OutputEvidence {
            values: pair.each_ref().map(|name| self.values.get(name).copied().unwrap_or(0)),
            sums: sums_of(self.sums.remove(&pair[1]), self.bins.min(MAX_BINS)),
            output: self.output,
            column: self.column,
        }
    }
}

/// The answers of two versions to the same requests.
#[derive(Deserialize)]
struct ToldPairs {
    champion: String,
    challenger: String,
    pairs: ToldOutputs,
}

impl ToldPairs {
    fn evidence(self, challenger: &str) -> Result<Evidence, Damage> {
        place_of(&[self.champion.as_str(), self.challenger.as_str()], challenger)?;
        let sides = ["champion".to_owned(), "challenger".to_owned()];
        Ok(Evidence {
            attempt: String::new(),
            names: [self.champion, self.challenger],
            unit: UnitKind::Request,
            totals: [ArmTotals::default(); 2],
            splits: Vec::new(),
            rows: Vec::new(),
            rows_dropped: 0,
            feedback: Vec::new(),
            outputs_left_out: self.pairs.left_out,
            outputs: self.pairs.features.into_iter().map(|of| of.evidence(&sides)).collect(),
            window: None,
            as_of_ms: 0,
        })
    }
}

impl ToldTrial {
    fn evidence(self, challenger: &str) -> Result<(Evidence, Durations), Damage> {
        let names: Vec<&str> = self.arms.iter().map(|arm| arm.version.as_str()).collect();
        if names.first() != Some(&self.champion.as_str()) {
            return Err("the first arm of the evidence is not its champion".to_owned());
        }
        let place = place_of(&names, challenger)?;
        let unit = match self.unit.as_str() {
            "sticky_key" => UnitKind::Key,
            "request" => UnitKind::Request,
            other => return Err(format!("the evidence has an unknown unit {other:?}")),
        };
        let pair = [self.champion.clone(), challenger.to_owned()];
        let known = |name: &String| names.contains(&name.as_str());
        if !self.minutes.iter().all(|row| row.arms.keys().all(known)) {
            return Err("the minutes of the evidence name a version that it does not have".to_owned());
        }
        let arms = [&self.arms[0], &self.arms[place]];
        let rows = self.minutes.into_iter().map(|row| row.of(&pair));
        let splits = self.splits.iter().map(|split| Split {
            slots: slots_of(
                split.slots.is_empty(),
                pair.each_ref().map(|name| split.slots.get(name).copied()),
            ),
        });
        let thresholds = |window: &ToldWindow, name: &String| {
            let ToldThresholds { run_ns, reply_ns } =
                window.thresholds.get(name).copied().unwrap_or_default();
            (run_ns, reply_ns)
        };
        let times = |split: &ToldSplit| {
            let of = |name: &String| split.arms.get(name).map_or(Times::default(), ToldSplitArm::times);
            pair.each_ref().map(of)
        };
        let durations = Durations {
            splits: self.splits.iter().map(times).collect(),
            champion: [arms[0].run.counts(), arms[0].reply.counts()],
        };
        let outputs = self.outputs.unwrap_or_default();
        let evidence = Evidence {
            attempt: self.attempt,
            unit,
            totals: arms.map(|arm| ArmTotals {
                running_slower_reply: arm.exceedances.running_slower_reply,
                ..arm.totals
            }),
            splits: splits.collect(),
            rows: rows.collect(),
            rows_dropped: self.minutes_dropped,
            feedback: self.feedback.into_iter().map(|feedback| feedback.evidence(&pair)).collect(),
            outputs_left_out: outputs.left_out,
            outputs: outputs.features.into_iter().map(|of| of.evidence(&pair)).collect(),
            window: self.window.as_ref().map(|window| pair.each_ref().map(|name| thresholds(window, name))),
            as_of_ms: self.as_of_ms,
            names: pair.clone(),
        };
        Ok((evidence, durations))
    }
}
