//! The classification extension: the highest values of an output as strings, `value:index` or `value:index:label`.
//!
//! Next: `response`, which sends them as a BYTES output.

use std::cmp::Ordering;

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, Shape, ShapeRef};

use crate::response::{OutputTensor, TensorData};
use crate::strings::StringTable;

/// Writes the `most` highest values of each row into `out` (cleared first). Returns the shape: `[rows, classes]`, or
/// `[classes]` for an output of one dimension.
///
/// The order is descending; equal values are in the order of their index, and NaN comes last. The first dimension of an
/// output with more than one is its rows. Floats are written with six decimals. `labels` has the names of the classes by
/// their index.
///
/// # Errors
/// `invalid_argument` for BYTES, which have no order.
pub fn classify(
    output: &OutputTensor<'_>,
    most: u64,
    labels: Option<&[String]>,
    out: &mut StringTable,
) -> Result<Shape> {
    let OutputTensor { name, datatype, shape, ref data, .. } = *output;
    out.clear();
    let ranker = Ranker { shape, most, labels };
    match *data {
        TensorData::Uint16(data) if datatype == DataType::Fp16 => {
            let values: Vec<f32> = data.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect();
            ranker.write(&values, out, |value| format!("{value:.6}"))
        }
        TensorData::Uint16(data) if datatype == DataType::Bf16 => {
            let values: Vec<f32> = data.iter().map(|&bits| half::bf16::from_bits(bits).to_f32()).collect();
            ranker.write(&values, out, |value| format!("{value:.6}"))
        }
        TensorData::Uint8(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Uint16(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Uint32(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Uint64(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Int8(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Int16(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Int32(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Int64(data) => ranker.write(data, out, |value| value.to_string()),
        TensorData::Fp32(data) => ranker.write(data, out, |value| format!("{value:.6}")),
        TensorData::Fp64(data) => ranker.write(data, out, |value| format!("{value:.6}")),
        TensorData::Raw(_) | TensorData::Strings(_) => Err(refuse_unordered(name)),
    }
}

/// The error for an output whose values have no order.
pub(crate) fn refuse_unordered(output: &str) -> Error {
    Error::invalid(format!("output \"{output}\": classification needs numbers, whose values have an order"))
}

struct Ranker<'a> {
    shape: ShapeRef<'a>,
    most: u64,
    labels: Option<&'a [String]>,
}

impl Ranker<'_> {
    fn write<T: PartialOrd + Copy>(
        &self,
        data: &[T],
        out: &mut StringTable,
        text: impl Fn(T) -> String,
    ) -> Result<Shape> {
        let rank = self.shape.rank();
        let rows = if rank > 1 { self.shape.rows() } else { 1 };
        let width = data.len().checked_div(rows).unwrap_or(0);
        let classes = usize::try_from(self.most).unwrap_or(usize::MAX).min(width);
        let mut order: Vec<usize> = Vec::with_capacity(width);
        for row in data.chunks_exact(width.max(1)) {
            order.clear();
            order.extend(0..width);
            order.sort_by(|&a, &b| descending(row[a], row[b]).then(a.cmp(&b)));
            for &class in &order[..classes] {
                let label = self.labels.and_then(|labels| labels.get(class));
                let value = text(row[class]);
                out.push(
                    match label {
                        Some(label) => format!("{value}:{class}:{label}"),
                        None => format!("{value}:{class}"),
                    }
                    .as_bytes(),
                );
            }
        }
        let classes = classes as i64;
        if rank > 1 { Shape::new(&[rows as i64, classes]) } else { Shape::new(&[classes]) }
    }
}

/// Puts the higher value first. A value that cannot be compared is NaN and goes last.
fn descending<T: PartialOrd>(a: T, b: T) -> Ordering {
    let is_none = |value: &T| value.partial_cmp(value).is_none();
    b.partial_cmp(&a).unwrap_or_else(|| is_none(&a).cmp(&is_none(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_core::spec::NonFinite;

    fn output<'a>(datatype: DataType, dims: &'a [i64], data: TensorData<'a>) -> OutputTensor<'a> {
        let (shape, non_finite) = (ShapeRef::new(dims).unwrap(), NonFinite::Error);
        OutputTensor { name: "Y", datatype, shape, data, binary: false, non_finite, template: None }
    }

    fn classes(data: &[f32], dims: &[i64], most: u64, labels: Option<&[String]>) -> (Vec<String>, Vec<i64>) {
        let mut out = StringTable::default();
        let output = output(DataType::Fp32, dims, TensorData::Fp32(data));
        let shape = classify(&output, most, labels, &mut out).unwrap();
        let texts = out.view().iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
        (texts, shape.dims().to_vec())
    }

    #[test]
    fn the_highest_come_first_with_their_labels() {
        let labels = ["cat", "dog", "fox"].map(str::to_owned);
        let (texts, shape) = classes(&[1.0, 2.0, 3.0], &[1, 3], 2, Some(&labels));
        assert_eq!((texts, shape), (vec!["3.000000:2:fox".into(), "2.000000:1:dog".into()], vec![1, 2]));
        let (texts, shape) = classes(&[0.5, f32::NAN, 0.5, -1.0], &[4], 9, None);
        assert_eq!(texts, ["0.500000:0", "0.500000:2", "-1.000000:3", "NaN:1"]);
        assert_eq!(shape, [4]);
    }

    #[test]
    fn every_row_has_its_own_order_and_no_row_none() {
        let (texts, shape) = classes(&[1.0, 2.0, 4.0, 3.0], &[2, 2], 1, None);
        assert_eq!((texts, shape), (vec!["2.000000:1".into(), "4.000000:0".into()], vec![2, 1]));
        assert_eq!(classes(&[], &[0, 3], 2, None), (vec![], vec![0, 0]));
        assert_eq!(classes(&[], &[2, 0], 2, None), (vec![], vec![2, 0]));
    }

    #[test]
    fn integers_are_themselves_and_bytes_refused() {
        let mut out = StringTable::default();
        let longs = output(DataType::Int64, &[2], TensorData::Int64(&[3, i64::MAX]));
        classify(&longs, 1, None, &mut out).unwrap();
        assert_eq!(out.view().get(0).unwrap(), b"9223372036854775807:1");
        let halves = output(DataType::Fp16, &[2], TensorData::Uint16(&[0x3c00, 0xbc00]));
        classify(&halves, 1, None, &mut out).unwrap();
        assert_eq!(out.view().get(0).unwrap(), b"1.000000:0");
        let bytes = output(DataType::Bytes, &[2], TensorData::Raw(&[1, 2]));
        let error = classify(&bytes, 1, None, &mut out).unwrap_err();
        assert!(error.message.contains("output \"Y\": classification needs"), "{error}");
    }
}
