//! The two columns of a tensor: its shape, and its elements without what is left out.
//!
//! Next: `crate::ipc`.

use headgate_core::tensor::DataType;

use crate::columns::{Bits, Body, LittleEndian, Texts};
use crate::layout::{RedactedColumns, Redaction, TensorLayout};
use crate::row::{Elements, TensorData};

/// A tensor's columns: lists, one for each row of the batch.
pub(crate) struct TensorColumn {
    datatype: DataType,
    redacted: Redaction,
    shapes: Lists<Vec<i64>>,
    elements: Lists<Values>,
}

/// Lists of values, some of which may be null.
struct Lists<V> {
    validity: Bits,
    offsets: Vec<i32>,
    values: V,
}

impl<V> Lists<V> {
    fn new(values: V) -> Lists<V> {
        Lists { validity: Bits::default(), offsets: vec![0], values }
    }

    /// Ends the list whose values were added.
    fn end(&mut self, is_valid: bool, values: usize) {
        self.validity.push(is_valid);
        self.offsets.push(values as i32);
    }

    fn write_lists(&self, body: &mut Body) {
        self.validity.write_validity(body);
        body.numbers(&self.offsets);
    }
}

/// The elements of all rows.
enum Values {
    Fixed { size: usize, bytes: Vec<u8> },
    Bools(Bits),
    Strings(Texts),
}

impl Values {
    fn new(datatype: DataType) -> Values {
        match (datatype, datatype.size()) {
            (DataType::Bool, _) => Values::Bools(Bits::default()),
            (_, Some(size)) => Values::Fixed { size, bytes: Vec::new() },
            (_, None) => Values::Strings(Texts::default()),
        }
    }

    fn count(&self) -> usize {
        match self {
            Values::Fixed { size, bytes } => bytes.len() / size,
            Values::Bools(bits) => bits.count(),
            Values::Strings(texts) => texts.count(),
        }
    }

    /// Adds elements; those that are `left_out` as zero or empty.
    fn extend(&mut self, elements: &Elements<'_>, left_out: impl Fn(usize) -> bool) {
        match (self, elements) {
            (Values::Fixed { size, bytes }, Elements::Fixed(data)) => {
                let begin = bytes.len();
                bytes.resize(begin + data.len(), 0);
                let pairs = bytes[begin..].chunks_exact_mut(*size).zip(data.chunks_exact(*size));
                for (_, (to, from)) in pairs.enumerate().filter(|&(index, _)| !left_out(index)) {
                    to.copy_from_slice(from);
                }
            }
            (Values::Bools(bits), Elements::Fixed(data)) => {
                for (index, &byte) in data.iter().enumerate() {
                    bits.push(byte != 0 && !left_out(index));
                }
            }
            (Values::Strings(texts), Elements::Strings { bytes, offsets }) => {
                let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
                for (index, (&begin, end)) in offsets.iter().zip(ends).enumerate() {
                    texts.push_bytes(if left_out(index) { &[] } else { &bytes[begin..end] });
                }
            }
            // `TensorColumn::fits` has compared the type.
            _ => {}
        }
    }

    fn write(&self, body: &mut Body) {
        match self {
            Values::Strings(texts) => texts.write(body),
            Values::Fixed { bytes, .. } => write_values(body, self.count(), bytes),
            Values::Bools(bits) => write_values(body, self.count(), bits.bytes()),
        }
    }
}

fn write_values(body: &mut Body, count: usize, bytes: &[u8]) {
    body.node(count, 0);
    body.buffer(&[]);
    body.buffer(bytes);
}

impl TensorColumn {
    /// The empty columns of a tensor.
    pub(crate) fn new(tensor: &TensorLayout) -> TensorColumn {
        TensorColumn {
            datatype: tensor.datatype,
            redacted: tensor.redacted.clone(),
            shapes: Lists::new(Vec::new()),
            elements: Lists::new(Values::new(tensor.datatype)),
        }
    }

    /// Whether a tensor has the type of the columns, and as many elements as its shape says.
    pub(crate) fn fits(&self, data: Option<&TensorData<'_>>) -> bool {
        let Some(data) = data else { return true };
        let Some(count) = data.count() else { return false };
        match (self.datatype.size(), data.elements) {
            (Some(size), Elements::Fixed(bytes)) => count.checked_mul(size) == Some(bytes.len()),
            (None, Elements::Strings { bytes, offsets }) => {
                offsets.len() == count
                    && offsets.is_sorted()
                    && offsets.last().is_none_or(|&last| last <= bytes.len())
            }
            _ => false,
        }
    }

    /// Adds a tensor that [`TensorColumn::fits`], or null.
    pub(crate) fn push(&mut self, data: Option<&TensorData<'_>>) {
        if let Some(data) = data {
            self.shapes.values.extend_from_slice(data.shape);
        }
        self.shapes.end(data.is_some(), self.shapes.values.len());
        let data = data.filter(|_| self.redacted != Redaction::Tensor);
        let kept = match (data, &self.redacted) {
            (None, _) | (_, Redaction::Tensor) => false,
            (Some(data), Redaction::None) => {
                self.elements.values.extend(&data.elements, |_| false);
                true
            }
            (Some(data), Redaction::Columns(columns)) => match row_elements(data.shape) {
                // The names say nothing about elements of rows that have another length.
                Some(width) if width == columns.columns.len() => {
                    self.elements.values.extend(&data.elements, |index| columns.has(index % width));
                    true
                }
                _ => false,
            },
        };
        self.elements.end(kept, self.elements.values.count());
    }

    /// Adds the columns to a batch.
    pub(crate) fn write(&self, body: &mut Body) {
        self.shapes.write_lists(body);
        let mut dims = Vec::new();
        self.shapes.values.iter().for_each(|dim| dim.append(&mut dims));
        write_values(body, self.shapes.values.len(), &dims);
        self.elements.write_lists(body);
        self.elements.values.write(body);
    }
}

impl RedactedColumns {
    /// Whether this column is left out.
    fn has(&self, column: usize) -> bool {
        self.redacted.binary_search(&column).is_ok()
    }
}

/// The elements of a row: the product of all dimensions but the first.
fn row_elements(shape: &[i64]) -> Option<usize> {
    let rest = shape.get(1..).unwrap_or_default();
    rest.iter().try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}
