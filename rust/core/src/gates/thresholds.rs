//! What durations are compared with in the next window: set before it begins, from what the champion has shown so far.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::durations::Durations;
use super::evidence::{CHALLENGER, CHAMPION, Evidence};
use super::latency::challengers_threshold;
use super::question::{Gate, LatencyGate, Measure};
use crate::error::{Error, Result};

/// Answers of the champion without which its quantile is not known well enough, for p95; other quantiles need as many beyond them.
const BEYOND: f64 = 20.0;

/// The thresholds of a window, or what is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Thresholds {
    /// For run and reply those of champion and challenger, in nanoseconds; 0 for a measure that no gate asks for.
    Ready([[u64; 2]; 2]),
    /// The champion has had so many answers, and so many are needed.
    TooFew {
        /// Answers so far.
        answers: u64,
        /// Answers that are needed.
        needed: u64,
    },
}

/// The thresholds for the latency gates among `gates`.
///
/// # Errors
/// `invalid_argument` for two gates on one measure: a window has one threshold for each.
pub fn thresholds(durations: &Durations, gates: &[Gate]) -> Result<Thresholds> {
    let mut by_measure: BTreeMap<usize, LatencyGate> = BTreeMap::new();
    for gate in gates {
        let Gate::Latency(latency) = gate else { continue };
        if by_measure.insert(place(latency.measure), *latency).is_some_and(|other| other != *latency) {
            let words = format!(
                "question: a window compares the {} once; name one latency gate for it",
                latency.measure.as_str()
            );
            return Err(Error::invalid(words));
        }
    }
    let mut found = [[0; 2]; 2];
    for (measure, gate) in by_measure {
        let times = &durations.champion[measure];
        let (answers, needed) = (times.total(), (BEYOND / (1.0 - gate.percent / 100.0)).ceil() as u64);
        let quantile = times.quantile_ns(gate.percent / 100.0).filter(|_| answers >= needed);
        let Some(quantile) = quantile else { return Ok(Thresholds::TooFew { answers, needed }) };
        found[measure] = [quantile, challengers_threshold(&gate, quantile)];
    }
    Ok(Thresholds::Ready(found))
}

fn place(measure: Measure) -> usize {
    match measure {
        Measure::Run => 0,
        Measure::Reply => 1,
    }
}

impl Thresholds {
    /// As they are told: `{"thresholds": ..., "answers", "needed"}`, with the thresholds in the form in which a trial takes them, or null.
    pub fn to_json(&self, evidence: &Evidence) -> Value {
        match self {
            Thresholds::TooFew { answers, needed } => {
                json!({"thresholds": null, "answers": answers, "needed": needed})
            }
            Thresholds::Ready([run, reply]) => {
                let arm = |arm: usize| json!({"run_ns": run[arm], "reply_ns": reply[arm]});
                let mut arms = serde_json::Map::new();
                for place in [CHAMPION, CHALLENGER] {
                    arms.insert(evidence.names[place].clone(), arm(place));
                }
                json!({"thresholds": {"attempt": evidence.attempt, "arms": arms}, "answers": null, "needed": null})
            }
        }
    }
}
