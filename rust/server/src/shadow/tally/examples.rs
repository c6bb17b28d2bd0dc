//! The newest pairs that differ, for a person to look at, if the document keeps some (`keep_examples`).
//!
//! A tensor that is redacted has no data, a column that is redacted has `null` in its place. Of each tensor the first differing row is
//! kept, and not more than a number of elements.

use std::collections::VecDeque;
use std::time::SystemTime;

use headgate_engine::Instant;
use serde_json::{Map, Value, json};

use headgate_core::tensor::TensorSpec;
use headgate_engine::runtime::TensorView;

use crate::shadow::comparing::PairComparison;
use crate::shadow::pair::{OutputTensors, RecordedPair};
use crate::shadow::pairing::Pairing;
use crate::shadow::values::Rows;

/// The most elements of a tensor, and of all tensors of an example.
const MAX_ELEMENTS: usize = 256;
/// See [`MAX_ELEMENTS`].
const MAX_ELEMENTS_OF_ALL: usize = 4096;
/// The most bytes of a string.
const MAX_STRING: usize = 256;

/// The kept examples, the newest first.
#[derive(Default)]
pub struct Examples {
    /// How many are kept.
    pub keep: usize,
    /// The examples with the time of their responses, the newest first.
    kept: VecDeque<(Instant, Value)>,
}

/// What is left out of examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Names of tensors.
    tensors: Vec<String>,
    /// Names of tensors with the place of a column.
    columns: Vec<(String, usize)>,
}

/// The request that an example is of.
#[derive(Clone, Copy)]
pub struct ExampleRequest<'a> {
    /// When the response was out.
    pub at: SystemTime,
    /// Its id.
    pub request_id: Option<&'a str>,
}

impl Examples {
    /// Keeps `keep` examples from now on. Those that are kept go if something must not be shown any more.
    pub fn configure(&mut self, keep: usize, redaction_changed: bool) {
        self.keep = keep;
        self.kept.truncate(if redaction_changed { 0 } else { keep });
    }

    /// Adds the example of a request whose response was out at `at`. Copies run side by side, so an older request may come after a newer one.
    pub fn add(&mut self, at: Instant, example: Value) {
        let place = self.kept.partition_point(|(other, _)| *other > at);
        self.kept.insert(place, (at, example));
        self.kept.truncate(self.keep);
    }

    /// The examples, the newest first.
    pub fn newest_first(&self) -> Vec<&Value> {
        self.kept.iter().map(|(_, example)| example).collect()
    }
}

impl Redaction {
    /// What the document leaves out: tensors, and columns as `tensor.column`, by name or by place. `columns` has the names of the columns of
    /// a tensor.
    pub fn new<'c>(redact: &[String], columns: impl Fn(&str) -> Option<&'c [String]>) -> Redaction {
        let mut redaction = Redaction { tensors: redact.to_vec(), columns: Vec::new() };
        for name in redact {
            // A name may have points itself, so that each of them may be the one before the column.
            for (at, _) in name.match_indices('.') {
                let (tensor, column) = (&name[..at], &name[at + 1..]);
                let named = columns(tensor).and_then(|all| all.iter().position(|one| one == column));
                if let Some(place) = named.or_else(|| column.parse().ok()) {
                    redaction.columns.push((tensor.to_owned(), place));
                }
            }
        }
        redaction
    }

    fn hides(&self, tensor: &str) -> bool {
        self.tensors.iter().any(|name| name == tensor)
    }

    fn hides_column(&self, tensor: &str, column: usize) -> bool {
        self.columns.iter().any(|(name, place)| name == tensor && *place == column)
    }
}

/// What is shown of a pair that differs.
pub fn example(
    request: ExampleRequest<'_>,
    pairing: &Pairing,
    (pair, other): (&dyn RecordedPair, &dyn OutputTensors),
    found: &PairComparison,
    redaction: &Redaction,
) -> Value {
    let row = found.first_differing.unwrap_or_default();
    let mut shown = Shown { row, left: MAX_ELEMENTS_OF_ALL, rows: pair.rows(), redaction };
    let mut inputs = Map::new();
    for (index, spec) in pair.signature().inputs.iter().enumerate() {
        if let Ok(view) = pair.input(index) {
            inputs.insert(spec.name.clone(), shown.tensor(spec, &view));
        }
    }
    let (mut asked, mut answered, mut differs) = (Map::new(), Map::new(), Vec::new());
    for (output, counts) in pairing.outputs.iter().zip(&found.outputs) {
        let spec = &pair.signature().outputs[output.asked];
        if let Ok(view) = pair.output(output.asked) {
            asked.insert(output.name.clone(), shown.tensor(spec, &view));
        }
        if let Ok(view) = other.output(output.other) {
            answered.insert(output.name.clone(), shown.tensor(spec, &view));
        }
        if counts.differing_rows > 0 {
            differs.push(output.name.as_str());
        }
    }
    json!({
        "at": humantime::format_rfc3339_millis(request.at).to_string(),
        "request_id": request.request_id,
        "row": row,
        "differs": differs,
        "inputs": inputs,
        "champion": asked,
        "shadow": answered,
    })
}

/// What may still be shown of one pair.
struct Shown<'a> {
    row: usize,
    left: usize,
    rows: usize,
    redaction: &'a Redaction,
}

impl Shown<'_> {
    fn tensor(&mut self, spec: &TensorSpec, view: &TensorView<'_>) -> Value {
        let (data, left_out) = if self.redaction.hides(&spec.name) {
            (Value::Null, Some("redacted".to_owned()))
        } else {
            self.data(&spec.name, view)
        };
        json!({
            "datatype": view.datatype.as_str(), "shape": view.shape.dims().collect::<Vec<_>>(), "data": data, "left_out": left_out,
        })
    }

    /// The elements of the row, or of the whole tensor if it does not have the rows of the request.
    fn data(&mut self, name: &str, view: &TensorView<'_>) -> (Value, Option<String>) {
        let rows = Rows::of(view);
        let (row, each) = (if rows.count() == self.rows { self.row } else { 0 }, rows.elements_per_row());
        let most = MAX_ELEMENTS.min(self.left);
        let mut numbers = Vec::new();
        rows.numbers(row, &mut numbers);
        let shown = numbers.into_iter().map(number).chain(rows.strings(row).map(string)).take(most);
        let data: Vec<Value> = shown
            .enumerate()
            .map(
                |(column, value)| {
                    if self.redaction.hides_column(name, column) { Value::Null } else { value }
                },
            )
            .collect();
        self.left -= data.len();
        let left_out = (data.len() < each).then(|| format!("more than {most} elements"));
        (Value::Array(data), left_out)
    }
}

fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::String(format!("{value}")), Value::Number)
}

fn string(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_STRING)]);
    Value::String(text.into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_column_is_left_out_by_its_name_or_its_place() {
        let names = ["age".to_owned(), "iban".to_owned()];
        let columns = |tensor: &str| (tensor == "a.x").then_some(&names[..]);
        let redaction = Redaction::new(&["a.x.iban".to_owned(), "y.3".to_owned(), "z".to_owned()], columns);
        assert!(redaction.hides_column("a.x", 1) && !redaction.hides_column("a.x", 0));
        assert!(redaction.hides_column("y", 3) && redaction.hides("z") && !redaction.hides("y"));
    }

    #[test]
    fn the_newest_are_kept_and_none_when_more_must_be_left_out() {
        let mut examples = Examples::default();
        examples.configure(2, false);
        // Copies end in any order.
        let first = Instant::now();
        for second in [0, 4, 1, 3, 2] {
            examples.add(first + Duration::from_secs(second), json!(second));
        }
        assert_eq!(examples.newest_first(), [&json!(4), &json!(3)]);
        examples.configure(1, false);
        assert_eq!(examples.newest_first(), [&json!(4)]);
        examples.configure(1, true);
        assert!(examples.newest_first().is_empty());
    }
}
