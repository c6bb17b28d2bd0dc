//! What is asked: the gates of a plan, and the promise about false rollbacks.
//!
//! Next: `evidence`.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::id::is_name;
use crate::stats::difference_sequence::Distance;

/// A question as it is sent, in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentQuestion {
    challenger: String,
    gates: Vec<SentGate>,
    false_rollbacks: f64,
    #[serde(default = "usual_confidence")]
    confidence: f64,
    #[serde(default)]
    blocks_ms: Vec<u64>,
    #[serde(default)]
    now_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentGate {
    gate: String,
    #[serde(default)]
    above: Option<f64>,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    ignore_below: Option<f64>,
    #[serde(default)]
    ignore_below_ns: Option<u64>,
    #[serde(default)]
    measure: Option<Measure>,
    #[serde(default)]
    distance: Option<Distance>,
}

fn usual_confidence() -> f64 {
    0.95
}

/// Which duration a latency gate compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The run of the model.
    Run,
    /// From admission to reply.
    Reply,
}

impl Measure {
    /// The name in questions and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Run => "run",
            Measure::Reply => "reply",
        }
    }
}

/// What has to be shown before a gate fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margin {
    /// That the challenger is worse than the champion; the estimate must be above the limit.
    Worse,
    /// That the challenger is worse by more than the limit.
    Strict,
}

/// A limit on how many times the champion's rate of bad events the challenger has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioLimit {
    /// The limit, at least 1.
    pub above: f64,
    /// What has to be shown.
    pub margin: Margin,
}

/// A gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// Runs that failed.
    ErrorRate {
        /// The limit.
        limit: RatioLimit,
        /// A rate of errors of the challenger's requests below which the gate does not fail.
        ignore_below: f64,
    },
    /// Requests that their version did not run.
    Availability {
        /// The limit.
        limit: RatioLimit,
    },
    /// Requests that are slower than a multiple of the champion's quantile.
    Latency(LatencyGate),
    /// What was given on answers.
    Feedback(FeedbackGate),
    /// How the outputs are distributed.
    OutputDrift(OutputDriftGate),
}

/// A limit on how far the distributions of outputs are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputDriftGate {
    /// The place of the output's name in [`Question::outputs`]; the name is empty for all outputs.
    pub place: usize,
    /// The limit on the distance, below 1; `None` for a gate that is shown and stops nothing.
    pub above: Option<f64>,
    /// The distance.
    pub distance: Distance,
}

/// A limit on how much worse the challenger's mean of a feedback is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedbackGate {
    /// The place of the feedback's name in [`Question::feedback`].
    pub place: usize,
    /// The limit on the difference of the means, in the unit of the feedback; at least 0.
    pub above: f64,
}

/// A limit on how many times a quantile of the champion's durations that of the challenger is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyGate {
    /// The quantile, as a percentage: 95 for p95.
    pub percent: f64,
    /// The limit, at least 1.
    pub above: f64,
    /// Durations of the challenger that are never too long, in nanoseconds.
    pub ignore_below_ns: u64,
    /// Which duration.
    pub measure: Measure,
}

/// A question that makes sense.
#[derive(Clone, Debug)]
pub struct Question {
    /// The version that is judged.
    pub challenger: String,
    /// The gates, each judged for itself.
    pub gates: Vec<Gate>,
    /// The names of the feedbacks that gates are about.
    pub feedback: Vec<String>,
    /// The names of the outputs that gates are about.
    pub outputs: Vec<String>,
    /// The probability with which a challenger that is no worse than the champion may fail any of the gates, over a whole attempt.
    pub false_rollbacks: f64,
    /// The confidence of intervals.
    pub confidence: f64,
    /// When steps began, in milliseconds since 1970, in ascending order.
    pub blocks_ms: Vec<u64>,
    /// The time of the question, in milliseconds since 1970; `None` is the time of the evidence.
    pub now_ms: Option<u64>,
}

impl Question {
    /// A question sent as JSON.
    ///
    /// # Errors
    /// `invalid_argument` with the path of what is wrong.
    pub fn from_json(json: &str) -> Result<Question> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let sent: SentQuestion = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Error::invalid(format!("question: {}: {}", error.path(), error.inner())))?;
        reader.end().map_err(|error| Error::invalid(format!("question: {error}")))?;
        let is_share = |share: f64| share > 0.0 && share < 1.0;
        if !is_share(sent.false_rollbacks) {
            return Err(Error::invalid("question: false_rollbacks must be between 0 and 1, as 0.01"));
        }
        if !is_share(sent.confidence) {
            return Err(Error::invalid("question: confidence must be between 0 and 1, as 0.95"));
        }
        if !sent.blocks_ms.is_sorted() {
            return Err(Error::invalid("question: blocks_ms must be in ascending order"));
        }
        if sent.gates.is_empty() {
            return Err(Error::invalid("question: gates must name at least one gate"));
        }
        let mut names = [Vec::new(), Vec::new()];
        let gates = sent.gates.iter().enumerate().map(|(index, gate)| {
            gate.checked(&mut names)
                .map_err(|problem| Error::invalid(format!("question: gates[{index}]: {problem}")))
        });
        let gates = gates.collect::<Result<_>>()?;
        let [feedback, outputs] = names;
        Ok(Question {
            challenger: sent.challenger,
            gates,
            feedback,
            outputs,
            false_rollbacks: sent.false_rollbacks,
            confidence: sent.confidence,
            blocks_ms: sent.blocks_ms,
            now_ms: sent.now_ms,
        })
    }

    /// The name of a gate in questions and answers.
    pub fn name_of(&self, gate: &Gate) -> String {
        match gate {
            Gate::ErrorRate { .. } => "error_rate".to_owned(),
            Gate::Availability { .. } => "availability".to_owned(),
            Gate::Latency(latency) => format!("latency.p{}", latency.percent),
            Gate::Feedback(gate) => format!("{FEEDBACK}{}", self.feedback[gate.place]),
            Gate::OutputDrift(gate) if self.outputs[gate.place].is_empty() => OUTPUT_DRIFT.to_owned(),
            Gate::OutputDrift(gate) => format!("{OUTPUT_DRIFT}.{}", self.outputs[gate.place]),
        }
    }

    /// The e-value at which a gate fails: the promise is shared out evenly among the gates that may fail.
    pub fn threshold(&self) -> f64 {
        let is_shown = |gate: &&Gate| matches!(gate, Gate::OutputDrift(OutputDriftGate { above: None, .. }));
        let fail = self.gates.len() - self.gates.iter().filter(is_shown).count();
        fail.max(1) as f64 / self.false_rollbacks
    }
}

impl SentGate {
    /// The gate. The name of its feedback or of its output goes behind those in `names`.
    fn checked(&self, names: &mut [Vec<String>; 2]) -> std::result::Result<Gate, String> {
        let [feedback, outputs] = names;
        if let Some(name) = self.gate.strip_prefix(FEEDBACK) {
            return self.about_feedback(name, feedback);
        }
        match self.gate.strip_prefix(OUTPUT_DRIFT).map(|rest| (rest, rest.strip_prefix('.'))) {
            Some(("", _)) => return self.about_outputs("", outputs),
            Some((_, Some(name))) => return self.about_outputs(name, outputs),
            _ if self.distance.is_some() => {
                return Err(format!("distance belongs to {OUTPUT_DRIFT}, not to {}", self.gate));
            }
            _ => {}
        }
        let Some(above) = self.above.filter(|above| above.is_finite() && *above >= 1.0) else {
            return Err("above must be at least 1, as 1.5".to_owned());
        };
        let only = |is_there: bool, field: &str, gates: &str| match is_there {
            true => Err(format!("{field} belongs to {gates}, not to {}", self.gate)),
            false => Ok(()),
        };
        let margin = if self.strict { Margin::Strict } else { Margin::Worse };
        let limit = RatioLimit { above, margin };
        let is_latency = self.gate.starts_with("latency.");
        if !is_latency {
            only(self.measure.is_some(), "measure", "latency.*")?;
            only(self.ignore_below_ns.is_some(), "ignore_below_ns", "latency.*")?;
        }
        if self.gate != "error_rate" {
            only(self.ignore_below.is_some(), "ignore_below", "error_rate")?;
        }
        match self.gate.as_str() {
            "error_rate" => {
                let ignore_below = self.ignore_below.unwrap_or(0.0);
                if !(0.0..1.0).contains(&ignore_below) {
                    return Err("ignore_below must be a share of requests, as 0.001".to_owned());
                }
                Ok(Gate::ErrorRate { limit, ignore_below })
            }
            "availability" => Ok(Gate::Availability { limit }),
            _ if is_latency => {
                only(self.strict, "strict", "error_rate and availability")?;
                let percent = percent_of(&self.gate).ok_or("the quantile must be as in latency.p95")?;
                let measure = self.measure.ok_or("measure must be \"run\" or \"reply\"")?;
                let ignore_below_ns = self.ignore_below_ns.unwrap_or(0);
                Ok(Gate::Latency(LatencyGate { percent, above, ignore_below_ns, measure }))
            }
            other => Err(format!(
                "there is no gate {other:?}; there are error_rate, availability, latency.pXX, feedback.NAME and output_drift"
            )),
        }
    }

    fn about_feedback(&self, name: &str, feedback: &mut Vec<String>) -> std::result::Result<Gate, String> {
        if !is_name(name) {
            return Err(format!("{name:?} is no name of a feedback"));
        }
        let Some(above) = self.above.filter(|above| above.is_finite() && *above >= 0.0) else {
            return Err("above must be a difference of means, at least 0".to_owned());
        };
        self.has_only_a_limit(self.distance.is_some())?;
        feedback.push(name.to_owned());
        Ok(Gate::Feedback(FeedbackGate { place: feedback.len() - 1, above }))
    }

    fn about_outputs(&self, name: &str, outputs: &mut Vec<String>) -> std::result::Result<Gate, String> {
        if self.above.is_some_and(|above| !(0.0..1.0).contains(&above)) {
            return Err("above must be a distance below 1, as 0.1".to_owned());
        }
        self.has_only_a_limit(false)?;
        outputs.push(name.to_owned());
        let distance = self.distance.unwrap_or(Distance::Ks);
        Ok(Gate::OutputDrift(OutputDriftGate { place: outputs.len() - 1, above: self.above, distance }))
    }

    fn has_only_a_limit(&self, has_distance: bool) -> std::result::Result<(), String> {
        let other = [
            (self.strict, "strict"),
            (self.measure.is_some(), "measure"),
            (self.ignore_below.is_some(), "ignore_below"),
            (self.ignore_below_ns.is_some(), "ignore_below_ns"),
            (has_distance, "distance"),
        ];
        match other.into_iter().find(|(is_there, _)| *is_there) {
            Some((_, field)) => Err(format!("{field} does not belong to {}", self.gate)),
            None => Ok(()),
        }
    }
}

/// What the names of gates on feedback begin with.
const FEEDBACK: &str = "feedback.";
/// What the names of gates on outputs begin with.
const OUTPUT_DRIFT: &str = "output_drift";

fn percent_of(gate: &str) -> Option<f64> {
    let percent: f64 = gate.strip_prefix("latency.p")?.parse().ok()?;
    (1.0..100.0).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        Question::from_json(json).unwrap_err().to_string()
    }

    #[test]
    fn a_question_is_read() {
        let question = Question::from_json(
            r#"{"challenger": "v8", "false_rollbacks": 0.01, "gates": [
                {"gate": "error_rate", "above": 1.5, "ignore_below": 0.001},
                {"gate": "availability", "above": 2, "strict": true},
                {"gate": "latency.p99.9", "above": 1.2, "ignore_below_ns": 5000000, "measure": "reply"},
                {"gate": "feedback.sale", "above": 0.02}, {"gate": "feedback.returns", "above": 0}]}"#,
        )
        .unwrap();
        let names: Vec<_> = question.gates.iter().map(|gate| question.name_of(gate)).collect();
        let wanted = ["error_rate", "availability", "latency.p99.9", "feedback.sale", "feedback.returns"];
        assert_eq!(names, wanted);
        assert!((question.threshold() - 500.0).abs() < 1e-9);
        assert_eq!(question.confidence, 0.95);
    }

    #[test]
    fn a_question_that_makes_no_sense_is_refused_with_its_place() {
        let with = |gate: &str| {
            refused(&format!(r#"{{"challenger": "v8", "false_rollbacks": 0.01, "gates": [{gate}]}}"#))
        };
        for (gate, words) in [
            (r#"{"gate": "error_rate", "above": 0.9}"#, "gates[0]: above"),
            (r#"{"gate": "latency.p95", "above": 1.2}"#, "measure"),
            (r#"{"gate": "latency.p100", "above": 1.2, "measure": "run"}"#, "quantile"),
            (r#"{"gate": "latency.p95", "above": 1.2, "measure": "run", "strict": true}"#, "strict"),
            (r#"{"gate": "availability", "above": 1.2, "ignore_below": 0.1}"#, "ignore_below belongs"),
            (r#"{"gate": "error_rate", "above": 1.2, "measure": "run"}"#, "measure belongs"),
            (r#"{"gate": "drift", "above": 1.2}"#, "no gate"),
            (r#"{"gate": "error_rate", "above": 1.2, "over": 1}"#, "over"),
            (r#"{"gate": "feedback.", "above": 1}"#, "no name of a feedback"),
            (r#"{"gate": "feedback.sale", "above": -0.1}"#, "difference of means"),
            (r#"{"gate": "feedback.sale", "above": 0.1, "strict": true}"#, "strict does not belong"),
        ] {
            assert!(with(gate).contains(words), "{gate}: {}", with(gate));
        }
        assert!(refused("{").contains("question"));
        assert!(
            refused(r#"{"challenger": "v8", "false_rollbacks": 0, "gates": []}"#).contains("false_rollbacks")
        );
        assert!(
            refused(r#"{"challenger": "v8", "false_rollbacks": 0.1, "gates": []}"#).contains("at least one")
        );
    }
}
