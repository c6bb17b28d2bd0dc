//! Judging as it is asked for and told: JSON in, JSON out. The form is described in `docs/design/gates.md`.

use serde_json::{Value, json};

use super::durations::Durations;
use super::evidence::{ArmTotals, CHALLENGER, CHAMPION, Evidence, UnitKind};
use super::feedback::Comparison;
use super::few_keys::FewKeys;
use super::interference::{ChampionTimes, Interference};
use super::judge::{Decision, JudgedGate, Judgement, judge};
use super::output_drift::{OutputComparison, POWER};
use super::power::{detectable, requests_to_catch};
use super::question::{Gate, Measure, Question};
use super::sample_ratio::{SAMPLE_RATIO_THRESHOLD, SampleRatio};
use super::thresholds::thresholds;
use super::timeline::{Exposed, Tally};
use super::verdict::Verdict;
use crate::error::{Error, Result};
use crate::feedback::moments::Moments;
use crate::stats::difference_sequence::planned_beyond;

/// The form of an answer. It grows with each change that a reader of the one before would misunderstand.
const FORMAT: u64 = 1;
/// The sets of values of an output that a plan reckons with: the bins of one continuous feature.
const PLANNED_SETS: usize = 75;
/// No larger number is told in JSON.
const GREATEST: f64 = 1e300;

/// Judges a trial, told whole in JSON (`null` if there is none), by a question in JSON; the answer as JSON.
///
/// # Errors
/// `invalid_argument` for a question that makes no sense. Evidence that cannot be judged is an answer: every verdict is `error`.
pub fn judge_json(evidence: &str, question: &str) -> Result<String> {
    let question = Question::from_json(question)?;
    let answer = match read(evidence, &question.challenger) {
        Read::Evidence(found) => {
            let (evidence, durations) = *found;
            answer(&evidence, &judge(&evidence, &durations, &question), &question)
        }
        Read::Without(verdict, reason) => without_evidence(&question, verdict, &reason),
    };
    Ok(answer.to_string())
}

/// The thresholds for the next window of a trial, told in JSON (`null` if there is none); see `thresholds`.
///
/// # Errors
/// `invalid_argument` for a question that makes no sense, and for evidence that cannot be judged.
pub fn thresholds_json(evidence: &str, question: &str) -> Result<String> {
    let question = Question::from_json(question)?;
    match read(evidence, &question.challenger) {
        Read::Evidence(found) => {
            let (evidence, durations) = *found;
            Ok(thresholds(&durations, &question.gates)?.to_json(&evidence).to_string())
        }
        Read::Without(Verdict::Undecided, _) => {
            Ok(json!({"thresholds": null, "answers": 0, "needed": null}).to_string())
        }
        Read::Without(_, reason) => Err(Error::invalid(reason)),
    }
}

/// What a step with a number of challenger's requests at an exposure shows: `{"detectable", "requests": [[ratio, requests], ...],
/// "distance_beyond"}`. The last is how far beyond its limit a distance of outputs must be, if each request has a unit of its own; null
/// without a request.
///
/// # Errors
/// `invalid_argument` for a share outside of (0, 1), or a threshold below 1.
pub fn power(exposed: Exposed, base: f64, threshold: f64) -> Result<Value> {
    let is_share = |share: f64| share > 0.0 && share < 1.0;
    if !is_share(exposed.exposure) || !is_share(base) || threshold.is_nan() || threshold < 1.0 {
        let words = "power: exposure and base must be between 0 and 1, and threshold at least 1";
        return Err(Error::invalid(words));
    }
    let requests = [2.0, 3.0, 5.0, 10.0]
        .map(|ratio| json!([ratio, requests_to_catch(exposed.exposure, base, ratio, threshold, 0.5)]));
    let beyond =
        planned_beyond(exposed.requests as f64, exposed.exposure, (PLANNED_SETS, threshold.ln()), POWER);
    Ok(json!({
        "detectable": detectable(&[exposed], base, threshold, 0.8), "requests": requests,
        "distance_beyond": finite(beyond),
    }))
}

enum Read {
    Evidence(Box<(Evidence, Durations)>),
    Without(Verdict, String),
}

fn read(evidence: &str, challenger: &str) -> Read {
    if evidence.trim() == "null" {
        return Read::Without(Verdict::Undecided, "there is no trial".to_owned());
    }
    match Evidence::from_json(evidence, challenger) {
        Ok(found) => Read::Evidence(Box::new(found)),
        Err(damage) => Read::Without(Verdict::Error, damage),
    }
}

fn answer(evidence: &Evidence, judgement: &Judgement, question: &Question) -> Value {
    let gates = judgement.gates.iter().map(|gate| gate_report(evidence, gate, question));
    json!({
        "format": FORMAT, "attempt": evidence.attempt, "champion": evidence.names[CHAMPION],
        "challenger": evidence.names[CHALLENGER], "as_of_ms": evidence.as_of_ms, "now_ms": question.now_ms,
        "unit": match evidence.unit { UnitKind::Key => "sticky_key", UnitKind::Request => "request" },
        "gates": gates.collect::<Vec<_>>(),
        "srm": sample_ratio_report(&judgement.sample_ratio),
        "few_keys": few_keys_report(&judgement.few_keys),
        "interference": interference_report(&judgement.interference),
        "arms": {"champion": arm_report(&evidence.totals[CHAMPION]), "challenger": arm_report(&evidence.totals[CHALLENGER])},
    })
}

fn without_evidence(question: &Question, verdict: Verdict, reason: &str) -> Value {
    let verdict = verdict.as_str();
    let gate = |gate: &Gate| {
        json!({
            "gate": question.name_of(gate), "measure": measure_of(gate), "verdict": verdict, "reason": reason, "champion": null,
            "challenger": null, "ratio": null, "interval": null, "e_value": null, "threshold": question.threshold(),
            "need": null, "detectable": null, "caught": [], "since_ms": null,
        })
    };
    json!({
        "format": FORMAT, "attempt": null, "champion": null, "challenger": question.challenger, "as_of_ms": null,
        "now_ms": question.now_ms, "unit": null, "gates": question.gates.iter().map(gate).collect::<Vec<_>>(),
        "srm": {"verdict": verdict, "reason": reason}, "few_keys": {"verdict": verdict, "reason": reason},
        "interference": null, "arms": null,
    })
}

fn measure_of(gate: &Gate) -> Option<&'static str> {
    match gate {
        Gate::Latency(latency) => Some(Measure::as_str(latency.measure)),
        _ => None,
    }
}

fn gate_report(evidence: &Evidence, judged: &JudgedGate, question: &Question) -> Value {
    let JudgedGate { gate, decision, numbers } = judged;
    let arm = |arm: usize| {
        let Tally { n, bad } = numbers.tallies[arm];
        let units = match gate {
            Gate::Latency(_) => n,
            _ => evidence.totals[arm].units,
        };
        json!({"units": units, "n": n, "bad": bad})
    };
    let name = question.name_of(gate);
    if let Some(comparison) = &decision.comparison {
        return feedback_report(&name, decision, comparison, question);
    }
    if let Some(comparison) = &decision.outputs {
        return outputs_report(&name, decision, comparison, question);
    }
    let caught = numbers.caught.iter();
    json!({
        "gate": name, "measure": measure_of(gate), "verdict": decision.verdict.as_str(), "reason": decision.reason,
        "champion": arm(CHAMPION), "challenger": arm(CHALLENGER), "ratio": finite(numbers.ratio),
        "interval": [finite(numbers.interval.low), finite(numbers.interval.high)],
        "e_value": decision.test.ln_e_value.exp().min(GREATEST), "threshold": question.threshold(),
        "need": numbers.need.map(|(ratio, requests)| json!({"ratio": ratio, "requests": requests})),
        "detectable": numbers.detectable,
        "caught": caught.map(|(ratio, probability)| json!({"ratio": ratio, "probability": probability})).collect::<Vec<_>>(),
        "since_ms": decision.test.since_ms,
    })
}

/// A gate on feedback: means in place of events, and their difference in place of a ratio.
fn feedback_report(name: &str, decision: &Decision, comparison: &Comparison, question: &Question) -> Value {
    let arm = |arm: usize| {
        let Moments { n, .. } = comparison.totals[arm];
        json!({
            "units": n, "n": n, "bad": 0, "mean": comparison.totals[arm].mean(),
            "repeated": comparison.repeated[arm], "answers": comparison.answers[arm],
            "coverage": comparison.coverage.share(arm),
        })
    };
    let ln_threshold = question.threshold().ln();
    let interval = comparison.interval(question.confidence);
    json!({
        "gate": name, "measure": null, "verdict": decision.verdict.as_str(), "reason": decision.reason,
        "champion": arm(CHAMPION), "challenger": arm(CHALLENGER), "ratio": null,
        "difference": finite(comparison.difference()), "interval": [finite(interval.low), finite(interval.high)],
        "coverage": comparison.coverage.least(), "e_value": decision.test.ln_e_value.exp().min(GREATEST),
        "threshold": question.threshold(), "need": null, "detectable": finite(comparison.detectable(ln_threshold)), "caught": [], "since_ms": null,
    })
}

/// A gate on outputs: values in place of events, and the distance of their distributions in place of a ratio.
fn outputs_report(
    name: &str,
    decision: &Decision,
    comparison: &OutputComparison,
    question: &Question,
) -> Value {
    let arm = |arm: usize| json!({"units": comparison.values[arm], "n": comparison.values[arm], "bad": 0});
    let (low, high) = comparison.interval;
    json!({
        "gate": name, "measure": null, "verdict": decision.verdict.as_str(), "reason": decision.reason,
        "champion": arm(CHAMPION), "challenger": arm(CHALLENGER), "ratio": null,
        "distance": finite(comparison.estimate), "distance_kind": comparison.distance.as_str(),
        "feature": comparison.feature, "features": comparison.features, "left_out": comparison.left_out,
        "interval": [low, high], "e_value": comparison.limit.map(|_| decision.test.ln_e_value.exp().min(GREATEST)),
        "threshold": question.threshold(), "need": null, "detectable": finite(comparison.detectable), "caught": [],
        "since_ms": null,
    })
}

/// Null for what has no bound and for what is not known.
fn finite(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn sample_ratio_report(found: &SampleRatio) -> Value {
    let is_found = found.ln_e_value >= SAMPLE_RATIO_THRESHOLD.ln();
    let verdict = match found.units {
        [0, 0] => Verdict::Undecided,
        _ if is_found => Verdict::Fail,
        _ => Verdict::Pass,
    };
    json!({
        "verdict": verdict.as_str(), "champion": found.units[CHAMPION], "challenger": found.units[CHALLENGER],
        "expected": found.expected, "e_value": found.ln_e_value.exp().min(GREATEST), "threshold": SAMPLE_RATIO_THRESHOLD,
        "reason": is_found.then_some("units do not reach the versions in the parts that the slots give them"),
    })
}

fn few_keys_report(found: &FewKeys) -> Value {
    let verdict = match (found.is_found, found.error_share[CHALLENGER]) {
        (_, None) => Verdict::Undecided,
        (true, _) => Verdict::Fail,
        (false, _) => Verdict::Pass,
    };
    json!({
        "verdict": verdict.as_str(), "champion": found.error_share[CHAMPION], "challenger": found.error_share[CHALLENGER],
        "of_three_units": found.of_three,
        "reason": found.is_found.then_some("most of the challenger's many errors are of three units"),
    })
}

fn interference_report(found: &Interference) -> Value {
    let times = |times: &ChampionTimes| json!({"run_p95_ns": times.run_p95_ns, "reply_p95_ns": times.reply_p95_ns, "per_minute": times.per_minute});
    json!({
        "champion_before": times(&found.before), "champion_now": times(&found.now),
        "mean_run_ns": {"champion": found.mean_run_ns[CHAMPION], "challenger": found.mean_run_ns[CHALLENGER]},
    })
}

fn arm_report(arm: &ArmTotals) -> Value {
    json!({
        "routed": arm.routed, "in_flight": arm.in_flight, "ran": arm.ran, "shed": arm.shed, "not_ready": arm.not_ready,
        "fell_back": arm.fell_back, "cancelled": arm.cancelled, "lost": arm.lost, "errors": arm.errors, "units": arm.units,
    })
}
