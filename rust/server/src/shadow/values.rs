//! The elements of a tensor as numbers or strings, row by row.

use half::{bf16, f16};
use headgate_core::tensor::DataType;
use headgate_engine::runtime::{Elements, TensorView};

/// The rows of a tensor. A tensor without dimensions is one row.
pub struct Rows<'a> {
    view: &'a TensorView<'a>,
    count: usize,
    elements_per_row: usize,
}

impl<'a> Rows<'a> {
    /// The rows of `view`.
    pub fn of(view: &'a TensorView<'a>) -> Rows<'a> {
        let count = view.shape.rows();
        Rows { view, count, elements_per_row: view.shape.count().checked_div(count).unwrap_or(0) }
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many elements a row has.
    pub fn elements_per_row(&self) -> usize {
        self.elements_per_row
    }

    /// Whether the elements are floating-point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self.view.datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
    }

    /// The element type.
    pub fn datatype(&self) -> DataType {
        self.view.datatype
    }

    /// Writes the numbers of a row to `out`, in place of what it has. A row that is not there, and one of strings, has none.
    pub fn numbers(&self, row: usize, out: &mut Vec<f64>) {
        out.clear();
        let Some(bytes) = self.bytes(row) else { return };
        match self.view.datatype {
            DataType::Bool | DataType::Uint8 => out.extend(bytes.iter().map(|&value| f64::from(value))),
            DataType::Int8 => out.extend(bytes.iter().map(|&value| f64::from(value as i8))),
            DataType::Uint16 => numbers(bytes, out, |value| f64::from(u16::from_ne_bytes(value))),
            DataType::Uint32 => numbers(bytes, out, |value| f64::from(u32::from_ne_bytes(value))),
            DataType::Uint64 => numbers(bytes, out, |value| u64::from_ne_bytes(value) as f64),
            DataType::Int16 => numbers(bytes, out, |value| f64::from(i16::from_ne_bytes(value))),
            DataType::Int32 => numbers(bytes, out, |value| f64::from(i32::from_ne_bytes(value))),
            DataType::Int64 => numbers(bytes, out, |value| i64::from_ne_bytes(value) as f64),
            DataType::Fp16 => numbers(bytes, out, |value| f16::from_ne_bytes(value).to_f64()),
            DataType::Bf16 => numbers(bytes, out, |value| bf16::from_ne_bytes(value).to_f64()),
            DataType::Fp32 => numbers(bytes, out, |value| f64::from(f32::from_ne_bytes(value))),
            DataType::Fp64 => numbers(bytes, out, f64::from_ne_bytes),
            DataType::Bytes => {}
        }
    }

    /// The bytes of a row; `None` for strings and for a row that is not there.
    pub fn bytes(&self, row: usize) -> Option<&'a [u8]> {
        let Elements::Bytes(bytes) = self.view.data else { return None };
        let each = self.elements_per_row * self.view.datatype.size()?;
        bytes.get(row * each..(row + 1) * each).filter(|_| row < self.count)
    }

    /// The strings of a row; none for numbers and for a row that is not there.
    pub fn strings(&self, row: usize) -> impl Iterator<Item = &[u8]> {
        let first = row * self.elements_per_row;
        let places = if row < self.count { first..first + self.elements_per_row } else { 0..0 };
        places.filter_map(|place| self.string(place))
    }

    fn string(&self, place: usize) -> Option<&[u8]> {
        let Elements::Strings { bytes, offsets } = &self.view.data else { return None };
        let end = offsets.get(place + 1).copied().unwrap_or(bytes.len());
        bytes.get(*offsets.get(place)?..end)
    }
}

fn numbers<const N: usize>(bytes: &[u8], out: &mut Vec<f64>, read: impl Fn([u8; N]) -> f64) {
    out.extend(bytes.as_chunks::<N>().0.iter().map(|&value| read(value)));
}
