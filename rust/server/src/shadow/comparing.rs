//! Compares the outputs of two versions for one request, row by row.
//!
//! A pair differs if a row of an output differs. Rows of different outputs belong together by their index.

use std::collections::BTreeMap;

use headgate_core::comparison::{Comparison, RowLabel};
use headgate_core::error::Result;

use crate::shadow::pair::OutputTensors;
use crate::shadow::pairing::{OutputPairing, Pairing};
use crate::shadow::values::Rows;

/// What comparing one pair found.
#[derive(Debug, Default, PartialEq)]
pub struct PairComparison {
    /// The outputs, in the order of the pairing.
    pub outputs: Vec<OutputComparison>,
    /// The rows, and those that differ in an output.
    pub rows: u64,
    /// See `rows`.
    pub differing_rows: u64,
    /// The first row that differs.
    pub first_differing: Option<usize>,
    /// Whether there is a NaN in the outputs of the version that was asked.
    pub asked_has_nan: bool,
    /// Whether there is a NaN in the other version's outputs.
    pub other_has_nan: bool,
}

/// What comparing one output found.
#[derive(Debug, Default, PartialEq)]
pub struct OutputComparison {
    /// The rows, and those that differ.
    pub rows: u64,
    /// See `rows`.
    pub differing_rows: u64,
    /// Of the rows that differ: which label became which, if the comparison has labels.
    pub moves: BTreeMap<(RowLabel, RowLabel), u64>,
    /// The labels of the version that was asked.
    pub asked_labels: BTreeMap<RowLabel, u64>,
    /// The other version's labels.
    pub other_labels: BTreeMap<RowLabel, u64>,
}

impl PairComparison {
    /// Whether the answers differ.
    pub fn differs(&self) -> bool {
        self.differing_rows > 0
    }
}

/// Compares what `other` answered with what `asked` had answered.
///
/// # Errors
/// `internal` if an output cannot be viewed.
pub fn compare(
    pairing: &Pairing,
    asked: &dyn OutputTensors,
    other: &dyn OutputTensors,
) -> Result<PairComparison> {
    let mut found = PairComparison::default();
    let mut differs: Vec<bool> = Vec::new();
    for output in &pairing.outputs {
        let (asked, other) = (asked.output(output.asked)?, other.output(output.other)?);
        let (asked, other) = (Rows::of(&asked), Rows::of(&other));
        found.asked_has_nan |= has_nan(&asked);
        found.other_has_nan |= has_nan(&other);
        let rows = asked.count().max(other.count());
        differs.resize(differs.len().max(rows), false);
        found.outputs.push(compare_rows(output, &asked, &other, &mut differs));
    }
    found.rows = differs.len() as u64;
    found.differing_rows = differs.iter().filter(|&&differs| differs).count() as u64;
    found.first_differing = differs.iter().position(|&differs| differs);
    Ok(found)
}

fn compare_rows(
    output: &OutputPairing,
    asked: &Rows<'_>,
    other: &Rows<'_>,
    differs: &mut [bool],
) -> OutputComparison {
    let mut found = OutputComparison { rows: asked.count().max(other.count()) as u64, ..Default::default() };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (row, row_differs) in differs.iter_mut().enumerate().take(found.rows as usize) {
        let both = row < asked.count() && row < other.count();
        asked.numbers(row, &mut ours);
        other.numbers(row, &mut theirs);
        let agrees = both && rows_agree(output.comparison, (asked, &ours), (other, &theirs), row);
        let labels = both.then(|| Some((output.comparison.label(&ours)?, output.comparison.label(&theirs)?)));
        if let Some((one, two)) = labels.flatten() {
            *found.asked_labels.entry(one).or_default() += 1;
            *found.other_labels.entry(two).or_default() += 1;
            if !agrees {
                *found.moves.entry((one, two)).or_default() += 1;
            }
        }
        if !agrees {
            found.differing_rows += 1;
            *row_differs = true;
        }
    }
    found
}

fn rows_agree(
    comparison: Comparison,
    (asked, ours): (&Rows<'_>, &[f64]),
    (other, theirs): (&Rows<'_>, &[f64]),
    row: usize,
) -> bool {
    if asked.datatype() != other.datatype() || comparison != Comparison::Exact || asked.is_float() {
        return comparison.agrees(ours, theirs);
    }
    // As they are: an integer beyond 2^53 is not the same as its neighbour, which has the same floating-point number.
    match (asked.bytes(row), other.bytes(row)) {
        (Some(one), Some(two)) => one == two,
        _ => asked.strings(row).eq(other.strings(row)),
    }
}

fn has_nan(rows: &Rows<'_>) -> bool {
    let mut numbers = Vec::new();
    rows.is_float()
        && (0..rows.count()).any(|row| {
            rows.numbers(row, &mut numbers);
            numbers.iter().any(|value| value.is_nan())
        })
}

#[cfg(test)]
mod tests;
