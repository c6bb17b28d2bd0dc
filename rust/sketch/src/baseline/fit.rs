//! Fits a baseline to columns of reference values: sorts them, chooses edges, and counts exactly on these edges.
//!
//! Not here: the choice of edges (`edges`). Next: `codec`.

use super::types::{Baseline, Column, FeatureBaseline};
use crate::edges::{self, Spacing};
use crate::error::{Error, Result};
use crate::moments::Moments;

/// Fits a baseline. `values[i]` are the reference values of `columns[i]`, one per row. NaN means that the row has no value.
///
/// The result does not depend on the order of rows or columns: rows are added in ascending order of value, so that even the last
/// digits of sums are the same.
///
/// # Errors
/// [`Error::Fit`] if there is no column, the two lists differ in length, a name is empty, or a feature occurs twice.
pub fn fit(columns: &[Column], values: &[&[f64]]) -> Result<Baseline> {
    if columns.is_empty() {
        return Err(Error::Fit("no columns were given; give at least one".into()));
    }
    if columns.len() != values.len() {
        return Err(Error::Fit(format!(
            "{} columns are described but {} arrays of values were given; give one array per column",
            columns.len(),
            values.len()
        )));
    }
    let mut features = Vec::with_capacity(columns.len());
    for (column, values) in columns.iter().zip(values) {
        if column.tensor.is_empty() || column.column.is_empty() {
            return Err(Error::Fit(format!("column {} has no tensor or no column name", features.len())));
        }
        features.push(fit_one(column, values)?);
    }
    Baseline::ordered(features).map_err(Error::Fit)
}

fn fit_one(column: &Column, values: &[f64]) -> Result<FeatureBaseline> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if column.integer
        && let Some(value) = finite.iter().find(|v| v.fract() != 0.0)
    {
        return Err(Error::Fit(format!(
            "column {:?} of tensor {:?} is declared integer but holds {value}; declare it as not integer",
            column.column, column.tensor
        )));
    }
    finite.sort_unstable_by(f64::total_cmp);
    let spacing = if column.integer { Spacing::Integer } else { Spacing::Continuous };
    let edges = edges::choose(&finite, spacing);
    let mut feature = FeatureBaseline {
        tensor: column.tensor.clone(),
        column: column.column.clone(),
        index: column.index,
        direction: column.direction,
        integer: column.integer,
        counts: vec![0; edges.len() + 1],
        sums: vec![0.0; edges.len() + 1],
        edges,
        moments: Moments::default(),
        missing: values.iter().filter(|v| v.is_nan()).count() as u64,
        positive_infinity: values.iter().filter(|v| **v == f64::INFINITY).count() as u64,
        negative_infinity: values.iter().filter(|v| **v == f64::NEG_INFINITY).count() as u64,
    };
    for &value in &finite {
        let slot = edges::slot(&feature.edges, value);
        feature.counts[slot] += 1;
        feature.sums[slot] += value;
        feature.moments.record(value);
    }
    if feature.sums.iter().any(|sum| !sum.is_finite()) || !feature.moments.m2.is_finite() {
        return Err(Error::Fit(format!(
            "the values of column {:?} of tensor {:?} are so large that their sum overflows; scale them",
            column.column, column.tensor
        )));
    }
    Ok(feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Direction;

    fn column(name: &str, index: u32) -> Column {
        Column { tensor: "X".into(), column: name.into(), index, direction: Direction::Input, integer: false }
    }

    #[test]
    fn every_row_is_counted_once() {
        let values = [1.0, 2.0, f64::NAN, f64::INFINITY, 2.0, f64::NEG_INFINITY, -0.0];
        let baseline = fit(&[column("a", 0)], &[&values]).unwrap();
        let feature = &baseline.features()[0];
        assert_eq!(feature.rows(), 7);
        assert_eq!(feature.counts.iter().sum::<u64>(), 4);
        assert_eq!((feature.missing, feature.positive_infinity, feature.negative_infinity), (1, 1, 1));
        assert_eq!(feature.counts[0], 0);
        assert_eq!(feature.counts[feature.edges.len()], 0);
    }

    #[test]
    fn the_order_of_rows_and_columns_does_not_matter() {
        let a: Vec<f64> = (0..500).map(|i| (f64::from(i) * 0.618).fract() - 0.3).collect();
        let b: Vec<f64> = a.iter().rev().copied().collect();
        let one = fit(&[column("a", 0), column("b", 1)], &[&a, &b]).unwrap();
        let two = fit(&[column("b", 1), column("a", 0)], &[&a, &b]).unwrap();
        assert_eq!(one.to_json(), two.to_json());
    }

    #[test]
    fn contradictions_are_refused_with_words() {
        let message = |columns: &[Column], values: &[&[f64]]| fit(columns, values).unwrap_err().to_string();
        assert!(message(&[], &[]).contains("no columns"));
        assert!(message(&[column("a", 0)], &[]).contains("0 arrays"));
        assert!(message(&[column("a", 0), column("a", 0)], &[&[1.0], &[1.0]]).contains("twice"));
        assert!(message(&[column("", 0)], &[&[1.0]]).contains("no column name"));
        let whole = Column { integer: true, ..column("a", 0) };
        assert!(message(&[whole], &[&[1.5]]).contains("declared integer"));
        assert!(message(&[column("a", 0)], &[&[f64::MAX, f64::MAX]]).contains("overflows"));
    }

    #[test]
    fn a_column_without_values_is_kept() {
        let baseline = fit(&[column("a", 0)], &[&[f64::NAN, f64::NAN]]).unwrap();
        assert_eq!((baseline.features()[0].edges.len(), baseline.features()[0].counts.len()), (0, 1));
        assert_eq!(Baseline::from_json(&baseline.to_json()).unwrap(), baseline);
    }
}
