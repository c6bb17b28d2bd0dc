//! What is asked of a run.

use headgate_core::error::{Error, Result};
use serde::Deserialize;

/// The most quantiles and the most objectives of a question.
const MOST: usize = 100;

/// Which quantiles, how sure, of which part of the run, and which objectives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// Each between 0 and 1.
    pub quantiles: Vec<f64>,
    /// How often an interval may miss its quantile.
    pub alpha: f64,
    /// From when on requests count, in nanoseconds from the start; `None` for the end of the warm-up.
    pub from_ns: Option<u64>,
    /// What is to be decided.
    pub objectives: Vec<LatencyObjective>,
    /// The wanted half width of an interval, as a share of its quantile.
    pub precision: f64,
}

/// At least a share `quantile` of requests is answered within `limit_ns`. With the greatest limit only requests without a
/// good answer are slower, so that it is an objective of errors.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyObjective {
    /// Between 0 and 1.
    pub quantile: f64,
    /// In nanoseconds; it is resolved as durations are, to 0.1 %.
    pub limit_ns: u64,
    /// How often the verdict may be wrong.
    pub alpha: f64,
}

impl Default for Question {
    fn default() -> Self {
        let quantiles = vec![0.5, 0.9, 0.95, 0.99, 0.999];
        Question { quantiles, alpha: 0.05, from_ns: None, objectives: Vec::new(), precision: 0.1 }
    }
}

impl Question {
    /// The question in a JSON text.
    ///
    /// # Errors
    /// `invalid_argument` with the path of what is wrong.
    pub fn parse(json: &str) -> Result<Question> {
        let question: Question =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json))
                .map_err(|error| Error::invalid(format!("question: {}: {}", error.path(), error.inner())))?;
        question.check()?;
        Ok(question)
    }

    fn check(&self) -> Result<()> {
        for (name, count) in [("quantiles", self.quantiles.len()), ("objectives", self.objectives.len())] {
            if count > MOST {
                return Err(Error::invalid(format!(
                    "question: {name}: {count} of them, at most {MOST} are answered"
                )));
            }
        }
        let quantiles = self.quantiles.iter().enumerate().map(|(at, &p)| (format!("quantiles[{at}]"), p));
        let objectives = self.objectives.iter().enumerate().flat_map(|(at, objective)| {
            [("quantile", objective.quantile), ("alpha", objective.alpha)]
                .map(|(field, value)| (format!("objectives[{at}].{field}"), value))
        });
        for (path, value) in quantiles.chain(objectives).chain([("alpha".to_owned(), self.alpha)]) {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::invalid(format!("question: {path}: {value} is not between 0 and 1")));
            }
        }
        if !(self.precision > 0.0 && self.precision.is_finite()) {
            return Err(Error::invalid(format!("question: precision: {} is not above 0", self.precision)));
        }
        Ok(())
    }
}
