//! Rows that are run together and alone, to find out whether a model may be batched.

use std::collections::BTreeSet;

use headgate_core::error::Result;
use headgate_core::tensor::Shape;
use headgate_runtime::Binding;

use crate::shapes::with_rows;

/// The most rows.
pub(crate) const MAX_ROWS: usize = 16;
/// The most bytes that all rows take, unless two take more.
const MAX_BYTES: usize = 64 << 20;

/// The bytes of one row, input by input.
pub(crate) type RowBytes = Vec<Vec<u8>>;

/// The place of one element in some rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElementPlace {
    pub(crate) row: usize,
    pub(crate) input: usize,
    pub(crate) element: usize,
}

/// Rows of the same kind that differ from each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowSet {
    /// The shape of one row of each input.
    row_shapes: Vec<Shape>,
    rows: Vec<RowBytes>,
}

impl RowSet {
    /// Picks some of the rows that differ, spread over all of them.
    pub(crate) fn pick_from(row_shapes: Vec<Shape>, all: Vec<RowBytes>) -> RowSet {
        let mut known = BTreeSet::new();
        let rows: Vec<_> = all.into_iter().filter(|row| known.insert(row.clone())).collect();
        let bytes = rows.first().map_or(0, |row| row.iter().map(Vec::len).sum());
        let count = RowSet::max_rows(bytes).min(rows.len());
        let picked = (0..count).map(|at| rows[at * rows.len() / count].clone()).collect();
        RowSet { row_shapes, rows: picked }
    }

    /// The most rows of `row_bytes` bytes each.
    pub(crate) fn max_rows(row_bytes: usize) -> usize {
        MAX_BYTES.checked_div(row_bytes).unwrap_or(MAX_ROWS).clamp(2, MAX_ROWS)
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The same rows with other elements, which `write` makes: all elements, or those that are the same in all rows. `None` if there are
    /// none. An element of input `i` takes `sizes[i]` bytes.
    pub(crate) fn varied(
        &self,
        sizes: &[usize],
        all: bool,
        write: impl Fn(ElementPlace, &mut [u8]),
    ) -> Option<RowSet> {
        let mut rows = self.rows.clone();
        let mut changed = false;
        for (input, &size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
            for element in 0..self.rows.first()?[input].len() / size {
                let range = element * size..(element + 1) * size;
                let is_alike = || {
                    self.rows
                        .iter()
                        .all(|row| row[input][range.clone()] == self.rows[0][input][range.clone()])
                };
                if !all && !is_alike() {
                    continue;
                }
                changed = true;
                for (row, bytes) in rows.iter_mut().enumerate() {
                    write(ElementPlace { row, input, element }, &mut bytes[input][range.clone()]);
                }
            }
        }
        changed.then(|| RowSet { row_shapes: self.row_shapes.clone(), rows })
    }

    /// Keeps the first rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    /// The size of one row, in bytes.
    pub(crate) fn row_bytes(&self) -> usize {
        self.rows.first().map_or(0, |row| row.iter().map(Vec::len).sum())
    }

    /// Fills the inputs with these rows, in that order.
    pub(crate) fn fill(&self, binding: &mut Binding, order: &[usize]) -> Result<()> {
        for (index, row_shapes) in self.row_shapes.iter().enumerate() {
            let tensor = binding.input_mut(index);
            tensor.reshape(&with_rows(row_shapes, order.len())?)?;
            let mut into = tensor.bytes_mut().unwrap_or_default();
            for &row in order {
                let bytes = &self.rows[row][index];
                let (here, rest) = into.split_at_mut(bytes.len().min(into.len()));
                here.copy_from_slice(&bytes[..here.len()]);
                into = rest;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_are_picked_from_all() {
        let row_shapes = vec![Shape::new(&[1, 2]).unwrap()];
        let row = |value: u8| vec![vec![value; 2]];
        let few = RowSet::pick_from(row_shapes.clone(), vec![row(1), row(1), row(2), row(1)]);
        assert_eq!(few.rows, [row(1), row(2)]);
        let many = RowSet::pick_from(row_shapes.clone(), (0..64).map(row).collect());
        assert_eq!((many.len(), &many.rows[0], &many.rows[15]), (16, &row(0), &row(60)));
        assert_eq!(RowSet::pick_from(row_shapes, Vec::new()).len(), 0);
        assert_eq!((RowSet::max_rows(0), RowSet::max_rows(8 << 20), RowSet::max_rows(1 << 30)), (16, 8, 2));
    }
}
