//! Inputs made from a signature.
//!
//! Most models run on zeros. Some divide by an input, or take one for a shape, and run on ones. Rows that are compared must differ in every
//! type. A model may take whole numbers for indices, so narrow ranges are tried after wide ones.

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use headgate_runtime::{Binding, Tensor};

use super::rows::{ElementPlace, MAX_ROWS, RowSet};

/// The sizes of open dimensions that are tried.
const OPEN_SIZES: [usize; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 224];
/// The most elements of a row whose open dimensions are larger than 1.
const MAX_ELEMENTS: usize = 1 << 20;

/// How inputs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntheticInputs {
    /// The size of open dimensions, except the first, which is the number of rows.
    open: usize,
    values: FillValue,
}

/// The value of all elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FillValue {
    /// 0, false, the empty string.
    Zeros,
    /// 1, true, "1".
    Ones,
}

/// The ranges of the elements of rows.
#[derive(Clone, Copy, Debug)]
struct ValueRange {
    /// The lowest and the highest whole number; 0 only if it is one of them.
    whole: (i32, i32),
    fractions: FractionRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FractionRange {
    /// Of either sign; some rows are a thousand times as large as others.
    Signed,
    /// The same, above 0.
    Positive,
    /// From 0 to 1.
    Unit,
}

/// The ranges that are tried, the most telling first.
const VALUE_RANGES: [ValueRange; 6] = [
    ValueRange { whole: (-120, 120), fractions: FractionRange::Signed },
    ValueRange { whole: (1, 120), fractions: FractionRange::Positive },
    ValueRange { whole: (1, 10), fractions: FractionRange::Signed },
    ValueRange { whole: (1, 3), fractions: FractionRange::Signed },
    ValueRange { whole: (0, 1), fractions: FractionRange::Signed },
    ValueRange { whole: (0, 1), fractions: FractionRange::Unit },
];

/// The rows of the file with other elements, one attempt after the other: all elements, or those that are the same in all rows.
pub(crate) fn varied(given: &RowSet, signature: &Signature, all: bool) -> impl Iterator<Item = RowSet> {
    let types: Vec<DataType> = signature.inputs.iter().map(|spec| spec.datatype).collect();
    let sizes: Vec<usize> = types.iter().map(|datatype| datatype.size().unwrap_or(0)).collect();
    VALUE_RANGES.into_iter().filter_map(move |range| {
        given.varied(&sizes, all, |place, into| {
            write_elements(into, types[place.input], |_| range.number(types[place.input], place));
        })
    })
}

impl SyntheticInputs {
    /// Zeros, with open dimensions of 1.
    pub(crate) const ZEROS: SyntheticInputs = SyntheticInputs { open: 1, values: FillValue::Zeros };

    /// The inputs to try one after the other until the model runs.
    pub(crate) fn attempts(signature: &Signature) -> Vec<SyntheticInputs> {
        let is_open = |spec: &TensorSpec| spec.shape.iter().skip(1).any(|&dim| dim < 0);
        let sizes = if signature.inputs.iter().any(is_open) { &OPEN_SIZES[..] } else { &OPEN_SIZES[..1] };
        let both = |&open: &usize| {
            [FillValue::Zeros, FillValue::Ones].map(|values| SyntheticInputs { open, values })
        };
        sizes.iter().flat_map(both).collect()
    }

    /// Fills the inputs with `rows` rows.
    pub(crate) fn fill(self, binding: &mut Binding, signature: &Signature, rows: usize) -> Result<()> {
        for (index, spec) in signature.inputs.iter().enumerate() {
            let tensor = binding.input_mut(index);
            let shape = self.shape(spec, rows)?;
            tensor.reshape(&shape)?;
            match tensor.bytes_mut() {
                Some(bytes) => self.values.write(bytes, spec.datatype),
                None => self.values.write_strings(tensor, shape.count())?,
            }
        }
        Ok(())
    }

    /// Rows that differ, one attempt after the other.
    pub(crate) fn rows(self, signature: &Signature) -> impl Iterator<Item = Result<RowSet>> {
        VALUE_RANGES.into_iter().map(move |range| self.rows_in_range(signature, range))
    }

    fn rows_in_range(self, signature: &Signature, range: ValueRange) -> Result<RowSet> {
        let shapes = signature.inputs.iter().map(|spec| self.shape(spec, 1)).collect::<Result<Vec<_>>>()?;
        let sizes: Vec<usize> = signature
            .inputs
            .iter()
            .zip(&shapes)
            .map(|(spec, shape)| shape.count() * spec.datatype.size().unwrap_or(0))
            .collect();
        let row = |row: usize| {
            let inputs = signature.inputs.iter().zip(&sizes).enumerate();
            let bytes = |(input, (spec, &size)): (usize, (&TensorSpec, &usize))| {
                let mut bytes = vec![0; size];
                let number = |element| range.number(spec.datatype, ElementPlace { row, input, element });
                write_elements(&mut bytes, spec.datatype, number);
                bytes
            };
            inputs.map(bytes).collect::<Vec<_>>()
        };
        let count = RowSet::max_rows(sizes.iter().sum()).min(MAX_ROWS);
        Ok(RowSet::pick_from(shapes, (0..count).map(row).collect()))
    }

    fn shape(self, spec: &TensorSpec, rows: usize) -> Result<Shape> {
        let size = |(axis, &dim): (usize, &i64)| match (axis, dim) {
            (0, -1) => rows as i64,
            (_, -1) => self.open as i64,
            _ => dim,
        };
        let shape = Shape::new(&spec.shape.iter().enumerate().map(size).collect::<Vec<_>>())?;
        if self.open > 1 && shape.count() / rows.max(1) > MAX_ELEMENTS {
            let words = format!("inputs of shape {:?} are too large to be made up", shape.dims());
            return Err(Error::invalid(words));
        }
        Ok(shape)
    }
}

impl FillValue {
    fn write(self, bytes: &mut [u8], datatype: DataType) {
        bytes.fill(0);
        if self == FillValue::Ones {
            write_elements(bytes, datatype, |_| 1.0);
        }
    }

    fn write_strings(self, tensor: &mut Tensor, count: usize) -> Result<()> {
        let text: &[u8] = if self == FillValue::Ones { b"1" } else { b"" };
        (0..count).try_for_each(|at| tensor.set_string(at, text))
    }
}

impl ValueRange {
    /// The element at a place; always the same for the same place.
    fn number(self, datatype: DataType, place: ElementPlace) -> f64 {
        let ElementPlace { row, input, element } = place;
        let random = split_mix_64((row as u64) << 48 ^ (input as u64) << 40 ^ element as u64);
        // 53 bits, from 0 to below 1.
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let is_negative = random & 1 == 1;
        match datatype {
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                // The magnitudes of the rows: 0.1, 1, 10, 100, and again.
                let size = (0.1 + 0.9 * unit) * 10_f64.powi(row as i32 % 4 - 1);
                match self.fractions {
                    FractionRange::Signed if is_negative => -size,
                    FractionRange::Signed | FractionRange::Positive => size,
                    FractionRange::Unit => unit,
                }
            }
            DataType::Bool => f64::from(u8::from(unit < 0.5)),
            _ => {
                let (low, high) = (f64::from(self.whole.0), f64::from(self.whole.1));
                let whole = (low + unit * (high - low + 1.0)).floor();
                let unsigned = matches!(
                    datatype,
                    DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64
                );
                let whole = if unsigned { whole.abs() } else { whole };
                // A divisor of 0 would fail.
                if whole == 0.0 && low < 0.0 { 1.0 } else { whole }
            }
        }
    }
}

/// A pseudorandom number (SplitMix64).
fn split_mix_64(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

/// Writes numbers as elements of a type. A number that the type cannot hold becomes the nearest that it can.
fn write_elements(bytes: &mut [u8], datatype: DataType, number: impl Fn(usize) -> f64) {
    macro_rules! each {
        ($size:literal, $element:expr) => {
            for (at, out) in bytes.chunks_exact_mut($size).enumerate() {
                out.copy_from_slice(&$element(number(at)).to_ne_bytes());
            }
        };
    }
    match datatype {
        DataType::Bool => each!(1, |number: f64| u8::from(number != 0.0)),
        DataType::Uint8 => each!(1, |number: f64| number as u8),
        DataType::Int8 => each!(1, |number: f64| number as i8),
        DataType::Uint16 => each!(2, |number: f64| number as u16),
        DataType::Int16 => each!(2, |number: f64| number as i16),
        DataType::Uint32 => each!(4, |number: f64| number as u32),
        DataType::Int32 => each!(4, |number: f64| number as i32),
        DataType::Uint64 => each!(8, |number: f64| number as u64),
        DataType::Int64 => each!(8, |number: f64| number as i64),
        DataType::Fp16 => each!(2, half::f16::from_f64),
        DataType::Bf16 => each!(2, half::bf16::from_f64),
        DataType::Fp32 => each!(4, |number: f64| number as f32),
        DataType::Fp64 => each!(8, |number: f64| number),
        DataType::Bytes => {}
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use super::*;

    #[test]
    fn rows_differ_in_every_type_and_are_the_same_whenever_they_are_made() {
        for datatype in DataType::ALL.into_iter().filter(|&datatype| datatype != DataType::Bytes) {
            let spec = TensorSpec {
                name: "x".into(),
                datatype,
                shape: vec![-1, 3],
                symbols: Vec::new(),
                any_rank: false,
                labels: Vec::new(),
            };
            let signature = Signature { inputs: vec![spec], ..Signature::default() };
            let rows =
                |range| format!("{:?}", SyntheticInputs::ZEROS.rows_in_range(&signature, range).unwrap());
            for range in VALUE_RANGES {
                let row_set = SyntheticInputs::ZEROS.rows_in_range(&signature, range).unwrap();
                assert!(row_set.len() >= 4, "{datatype} {range:?}: {}", row_set.len());
                assert_eq!(rows(range), rows(range));
            }
        }
    }

    #[test]
    fn whole_numbers_keep_to_their_range_and_leave_0_out_of_a_wide_one() {
        for range in VALUE_RANGES {
            for at in 0..1_000 {
                let place = ElementPlace { row: at % 16, input: 0, element: at };
                let number = range.number(DataType::Int64, place);
                assert!((f64::from(range.whole.0)..=f64::from(range.whole.1)).contains(&number));
                assert!(number != 0.0 || range.whole.0 == 0);
                assert!(range.number(DataType::Uint8, place) >= 0.0);
            }
        }
    }
}
