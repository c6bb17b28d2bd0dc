//! All gates of a question on one trial, and what pauses a rollout.
//!
//! Next: `report`, which tells it.

use super::durations::Durations;
use super::event_test::{TestResult, test};
use super::evidence::{CHALLENGER, CHAMPION, Damage, Evidence};
use super::feedback::{self, Comparison};
use super::few_keys::{FewKeys, few_keys};
use super::interference::{Interference, interference};
use super::latency::{self, window_thresholds};
use super::output_drift::{self, Certainty, OutputComparison};
use super::power::{caught, detectable, requests_to_catch};
use super::question::{FeedbackGate, Gate, Margin, OutputDriftGate, Question, RatioLimit};
use super::sample_ratio::{SampleRatio, sample_ratio};
use super::timeline::{Tally, Timeline};
use super::verdict::Verdict;
use super::{availability, error_rate};
use crate::stats::event_ratio::{ratio_estimate, ratio_interval};
use crate::stats::proportion::Interval;

/// The probability with which a ratio is told to be detectable.
const POWER: f64 = 0.8;
/// The ratios of which it is told how probably they would have been caught.
const RATIOS: [f64; 4] = [2.0, 3.0, 5.0, 10.0];

/// A verdict, and what it rests on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, if the numbers do not say it.
    pub reason: Option<String>,
    /// The events.
    pub timeline: Timeline,
    /// The test on them.
    pub test: TestResult,
    /// The means of a gate on feedback, which has no events.
    pub comparison: Option<Comparison>,
    /// The distributions of a gate on outputs, which has no events.
    pub outputs: Option<OutputComparison>,
}

/// The numbers that a person reads beside a verdict.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// What was counted of champion and challenger.
    pub tallies: [Tally; 2],
    /// The challenger's rate of events as a multiple of the champion's; NaN without events.
    pub ratio: f64,
    /// All ratios that the events do not contradict, valid at every moment.
    pub interval: Interval,
    /// The smallest ratio that so much data catches in 80 % of all cases.
    pub detectable: Option<f64>,
    /// With which probability it catches which ratio.
    pub caught: Vec<(f64, f64)>,
    /// A ratio, and the requests of the challenger that catch it in half of all cases.
    pub need: Option<(f64, u64)>,
}

/// A gate with its verdict and numbers.
#[derive(Clone, Debug)]
pub struct JudgedGate {
    /// The gate.
    pub gate: Gate,
    /// The verdict.
    pub decision: Decision,
    /// What is told beside it.
    pub numbers: Numbers,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The gates, in the order of the question.
    pub gates: Vec<JudgedGate>,
    /// Whether units reach the arms as the slots say.
    pub sample_ratio: SampleRatio,
    /// Whether few keys have most errors.
    pub few_keys: FewKeys,
    /// What is told of interference.
    pub interference: Interference,
}

/// Judges all gates of a question.
pub fn judge(evidence: &Evidence, durations: &Durations, question: &Question) -> Judgement {
    let gates = question.gates.iter().map(|&gate| {
        let decision = decide(evidence, gate, question);
        JudgedGate { gate, numbers: numbers(&decision.timeline, gate, question), decision }
    });
    Judgement {
        gates: gates.collect(),
        sample_ratio: sample_ratio(evidence),
        few_keys: few_keys(evidence),
        interference: interference(evidence, durations),
    }
}

/// Judges one gate, without the numbers that are told beside it.
pub fn decide(evidence: &Evidence, gate: Gate, question: &Question) -> Decision {
    let steps = &question.blocks_ms;
    let timeline = match gate {
        Gate::Feedback(gate) => return decide_feedback(evidence, gate, question),
        Gate::OutputDrift(gate) => return decide_outputs(evidence, gate, question),
        Gate::ErrorRate { .. } => error_rate::timeline(evidence, steps),
        Gate::Availability { .. } => availability::timeline(evidence, steps),
        Gate::Latency(latency) => latency::timeline(evidence, latency.measure, steps),
    };
    let test = test(&timeline, limit_of(gate), question.threshold());
    let (verdict, reason) = match verdict(evidence, gate, &timeline, test) {
        Ok((Verdict::Pass, None)) if test.ln_e_value >= question.threshold().ln() => {
            let words = "the challenger is worse than the champion, by less than the limit";
            (Verdict::Pass, Some(words.to_owned()))
        }
        Ok(found) => found,
        Err(damage) => (Verdict::Error, Some(damage)),
    };
    Decision { verdict, reason, timeline, test, comparison: None, outputs: None }
}

fn decide_feedback(evidence: &Evidence, gate: FeedbackGate, question: &Question) -> Decision {
    let name = &question.feedback[gate.place];
    let comparison = feedback::compare(evidence, name);
    let ln_threshold = question.threshold().ln();
    let (verdict, reason) = feedback::verdict(evidence, &comparison, (name, gate.above), ln_threshold);
    let ln_e_value = comparison.ln_e_value(ln_threshold);
    let test = TestResult { ln_e_value, is_harm: verdict == Verdict::Fail, since_ms: None };
    let timeline = Timeline::default();
    Decision { verdict, reason, timeline, test, comparison: Some(comparison), outputs: None }
}

fn decide_outputs(evidence: &Evidence, gate: OutputDriftGate, question: &Question) -> Decision {
    let name = &question.outputs[gate.place];
    let ln_threshold = question.threshold().ln();
    let certainty = Certainty { ln_threshold, confidence: question.confidence };
    let comparison = output_drift::compare(evidence, name, &gate, certainty);
    let (verdict, reason) = output_drift::verdict(evidence, &comparison, name, ln_threshold);
    let test =
        TestResult { ln_e_value: comparison.ln_e_value, is_harm: verdict == Verdict::Fail, since_ms: None };
    let timeline = Timeline::default();
    Decision { verdict, reason, timeline, test, comparison: None, outputs: Some(comparison) }
}

/// The limit on the ratio of events. For latencies, the limit on the durations is in the thresholds; feedback and outputs have no events.
fn limit_of(gate: Gate) -> RatioLimit {
    match gate {
        Gate::ErrorRate { limit, .. } | Gate::Availability { limit } => limit,
        Gate::Latency(_) | Gate::Feedback(_) | Gate::OutputDrift(_) => {
            RatioLimit { above: 1.0, margin: Margin::Worse }
        }
    }
}

fn verdict(
    evidence: &Evidence,
    gate: Gate,
    timeline: &Timeline,
    test: TestResult,
) -> Result<(Verdict, Option<String>), Damage> {
    if let Gate::Latency(latency) = gate
        && window_thresholds(evidence, &latency)?.is_none()
    {
        let words = format!("no threshold for the {} is set yet", latency.measure.as_str());
        return Ok((Verdict::Undecided, Some(words)));
    }
    if test.is_harm {
        return Ok(match gate {
            Gate::ErrorRate { ignore_below, .. } if error_share(evidence) < ignore_below => {
                (Verdict::Pass, Some("the challenger's errors are fewer than ignore_below".to_owned()))
            }
            _ => (Verdict::Fail, None),
        });
    }
    let [champion, challenger] = timeline.tallies;
    let missing =
        |name: &str| (Verdict::Undecided, Some(format!("there is nothing of {name} to compare yet")));
    Ok(match (champion.n, challenger.n) {
        (_, 0) => missing(&evidence.names[CHALLENGER]),
        (0, _) => missing(&evidence.names[CHAMPION]),
        _ => (Verdict::Pass, None),
    })
}

/// The share of the challenger's runs that failed.
fn error_share(evidence: &Evidence) -> f64 {
    let arm = &evidence.totals[CHALLENGER];
    if arm.ran == 0 { 0.0 } else { arm.errors as f64 / arm.ran as f64 }
}

fn numbers(timeline: &Timeline, gate: Gate, question: &Question) -> Numbers {
    let (events, threshold) = (timeline.pooled(), question.threshold());
    let [champion, challenger] = timeline.tallies;
    // A champion without a bad event has some rate all the same.
    let base = (champion.bad as f64 + 0.5) / (champion.n as f64 + 1.0);
    let exposed = &timeline.exposed;
    let is_data = champion.n > 0 && challenger.n > 0;
    let chance = |ratio: f64| (ratio, caught(exposed, base, ratio, threshold));
    let need = exposed.last().filter(|_| is_data).and_then(|last| {
        let ratio = 2.0 * limit_of(gate).above;
        Some((ratio, requests_to_catch(last.exposure, base, ratio, threshold, 0.5)?))
    });
    Numbers {
        tallies: timeline.tallies,
        ratio: ratio_estimate(&events),
        interval: ratio_interval(&events, question.confidence),
        detectable: is_data.then(|| detectable(exposed, base, threshold, POWER)).flatten(),
        caught: RATIOS.into_iter().filter(|_| is_data).map(chance).collect(),
        need,
    }
}
