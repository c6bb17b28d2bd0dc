//! A feedback that a document declares: its kind, its range, which direction is good, and until when it is taken.
//!
//! Next: `seen`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::is_name;

/// The most feedbacks of an endpoint.
pub const MAX_FEEDBACKS: usize = 8;

/// The longest time after an answer for which feedback on it is taken, in milliseconds: 90 days.
pub const MAX_WITHIN_MS: u64 = 90 * 86_400_000;

/// All answers, in ten-thousandths.
const ALL_ANSWERS: u16 = 10_000;

/// The feedbacks of an endpoint by name.
pub type Feedbacks = BTreeMap<String, FeedbackSpec>;

/// What is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackKind {
    /// A number in a range.
    Value,
    /// A whole number in a range.
    Count,
    /// `true` or `false`, which count as 1 and 0.
    Label,
}

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Good {
    /// A higher mean is better.
    High,
    /// A lower mean is better.
    Low,
}

/// The least and the greatest value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range(pub f64, pub f64);

impl Range {
    /// That of a label.
    pub const LABEL: Range = Range(0.0, 1.0);

    /// The width.
    pub fn width(self) -> f64 {
        self.1 - self.0
    }

    /// Whether both ends are finite, the first below the second, and their squares can be summed up.
    pub fn is_sound(self) -> bool {
        self.0.abs() <= 1e9 && self.1.abs() <= 1e9 && self.0 < self.1
    }
}

/// A feedback as a document declares it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackSpec {
    /// What is given.
    pub kind: FeedbackKind,
    /// The range; that of a label need not be written.
    #[serde(default = "label_range")]
    pub range: Range,
    /// Which direction is good.
    pub good: Good,
    /// How long after the answer it is taken, in milliseconds.
    #[serde(rename = "within")]
    pub within_ms: u64,
    /// The share of answers that must have it before a gate decides, in ten-thousandths; `None` asks for no share.
    #[serde(default)]
    pub coverage: Option<u16>,
}

/// What contradicts itself in the feedbacks of an endpoint, if anything does.
pub fn feedback_fault(feedbacks: &Feedbacks) -> Option<String> {
    if feedbacks.len() > MAX_FEEDBACKS {
        return Some(format!("an endpoint has at most {MAX_FEEDBACKS} feedbacks"));
    }
    let fault = |name: &str, feedback: &FeedbackSpec| {
        if is_name(name) { feedback.fault() } else { Some("the name is not valid") }
    };
    feedbacks
        .iter()
        .find_map(|(name, feedback)| Some(format!("feedback {name:?}: {}", fault(name, feedback)?)))
}

fn label_range() -> Range {
    Range::LABEL
}

impl FeedbackSpec {
    /// What contradicts itself, if anything does.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            _ if !self.range.is_sound() => {
                Some("range must be two numbers up to a thousand million, the lower one first")
            }
            _ if self.kind == FeedbackKind::Label && self.range != Range::LABEL => {
                Some("a label has no range: it is true or false")
            }
            _ if !(1..=MAX_WITHIN_MS).contains(&self.within_ms) => {
                Some("within must be above zero, and 90 days at most")
            }
            _ if self.coverage.is_some_and(|share| !(1..=ALL_ANSWERS).contains(&share)) => {
                Some("coverage must be above zero, and 100% at most")
            }
            _ => None,
        }
    }

    /// The number that a value stands for.
    ///
    /// # Errors
    /// Words about the value, if it is none of this feedback.
    pub fn number(&self, value: &Value) -> Result<f64, String> {
        let Range(low, high) = self.range;
        let number = match (self.kind, value) {
            (FeedbackKind::Label, Value::Bool(label)) => return Ok(f64::from(u8::from(*label))),
            (FeedbackKind::Label, _) => return Err("value must be true or false".to_owned()),
            (_, Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
            (_, _) => return Err(format!("value must be a number from {low} to {high}")),
        };
        if self.kind == FeedbackKind::Count && number.fract() != 0.0 {
            return Err(format!("value must be a whole number from {low} to {high}"));
        }
        match (low..=high).contains(&number) {
            true => Ok(number),
            false => Err(format!("value {number} is outside of the range from {low} to {high}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(kind: FeedbackKind, range: Range) -> FeedbackSpec {
        FeedbackSpec { kind, range, good: Good::High, within_ms: 1_000, coverage: None }
    }

    #[test]
    fn each_kind_takes_its_values_alone() {
        let label = spec(FeedbackKind::Label, Range::LABEL);
        assert_eq!((label.number(&json!(true)), label.number(&json!(false))), (Ok(1.0), Ok(0.0)));
        let count = spec(FeedbackKind::Count, Range(0.0, 20.0));
        assert_eq!((count.number(&json!(20)), count.number(&json!(3.0))), (Ok(20.0), Ok(3.0)));
        let value = spec(FeedbackKind::Value, Range(-1.0, 1.0));
        assert_eq!(value.number(&json!(-0.25)), Ok(-0.25));
        for (spec, refused, words) in [
            (label, json!(1), "true or false"),
            (label, json!("true"), "true or false"),
            (count, json!(2.5), "whole number"),
            (count, json!(21), "outside of the range"),
            (count, json!(null), "a number from 0 to 20"),
            (value, json!(1.01), "outside of the range"),
            (value, json!([0]), "a number from -1 to 1"),
            (value, json!(true), "a number from -1 to 1"),
        ] {
            let said = spec.number(&refused).unwrap_err();
            assert!(said.contains(words), "{refused}: {said}");
        }
    }

    #[test]
    fn feedbacks_are_few_and_have_names() {
        let good = spec(FeedbackKind::Label, Range::LABEL);
        let named =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), good)).collect::<Feedbacks>();
        assert_eq!(feedback_fault(&named(&["sale", "v1.click"])), None);
        assert!(feedback_fault(&named(&["a b"])).is_some_and(|fault| fault.contains("name is not valid")));
        let many: Vec<String> = (0..=MAX_FEEDBACKS).map(|number| format!("f{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(feedback_fault(&named(&many)).is_some_and(|fault| fault.contains("at most 8")));
        let bad = Feedbacks::from([("sale".to_owned(), FeedbackSpec { within_ms: 0, ..good })]);
        assert_eq!(
            feedback_fault(&bad).unwrap(),
            "feedback \"sale\": within must be above zero, and 90 days at most"
        );
    }

    #[test]
    fn a_declaration_that_makes_no_sense_is_found() {
        let good = spec(FeedbackKind::Value, Range(1.0, 5.0));
        assert_eq!(good.fault(), None);
        for (bad, words) in [
            (FeedbackSpec { range: Range(5.0, 1.0), ..good }, "lower one first"),
            (FeedbackSpec { range: Range(f64::NAN, 1.0), ..good }, "two numbers"),
            (FeedbackSpec { range: Range(0.0, 1e10), ..good }, "two numbers"),
            (FeedbackSpec { kind: FeedbackKind::Label, ..good }, "label has no range"),
            (FeedbackSpec { within_ms: 0, ..good }, "within"),
            (FeedbackSpec { within_ms: MAX_WITHIN_MS + 1, ..good }, "90 days at most"),
            (FeedbackSpec { coverage: Some(0), ..good }, "coverage"),
            (FeedbackSpec { coverage: Some(10_001), ..good }, "100% at most"),
        ] {
            assert!(bad.fault().is_some_and(|fault| fault.contains(words)), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_number_that_is_taken_is_in_its_range(number in proptest::num::f64::ANY) {
            let spec = spec(FeedbackKind::Value, Range(-2.0, 3.0));
            if let Ok(found) = spec.number(&json!(number)) {
                prop_assert!((-2.0..=3.0).contains(&found));
            }
        }
    }
}
