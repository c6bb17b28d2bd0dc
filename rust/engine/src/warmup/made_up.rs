//! Inputs that are made up from a signature.
//!
//! Zeros suit most models; some divide by an input, or take one for a shape, and run on ones.

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use headgate_runtime::{Binding, Tensor};

/// Sizes of open dimensions that are tried.
const OPEN: [usize; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 224];
/// The most elements of a row whose open dimensions are more than 1.
const MOST_ELEMENTS: usize = 1 << 20;

/// How inputs are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MadeUp {
    /// The size of open dimensions, but for the first, which is the rows'.
    open: usize,
    values: Values,
}

/// The elements of made-up inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// 0, false, the empty string.
    Zeros,
    /// 1, true, "1".
    Ones,
}

impl MadeUp {
    /// Zeros, with open dimensions of 1.
    pub(crate) const ZEROS: MadeUp = MadeUp { open: 1, values: Values::Zeros };

    /// The inputs to try one after the other until the model takes one of them.
    pub(crate) fn attempts(signature: &Signature) -> Vec<MadeUp> {
        let is_open = |spec: &TensorSpec| spec.shape.iter().skip(1).any(|&dim| dim < 0);
        let sizes = if signature.inputs.iter().any(is_open) { &OPEN[..] } else { &OPEN[..1] };
        let both = |&open: &usize| [Values::Zeros, Values::Ones].map(|values| MadeUp { open, values });
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

    fn shape(self, spec: &TensorSpec, rows: usize) -> Result<Shape> {
        let size = |(axis, &dim): (usize, &i64)| match (axis, dim) {
            (0, -1) => rows as i64,
            (_, -1) => self.open as i64,
            _ => dim,
        };
        let shape = Shape::new(&spec.shape.iter().enumerate().map(size).collect::<Vec<_>>())?;
        if self.open > 1 && shape.count() / rows.max(1) > MOST_ELEMENTS {
            let words = format!("inputs of shape {:?} are too large to be made up", shape.dims());
            return Err(Error::invalid(words));
        }
        Ok(shape)
    }
}

impl Values {
    fn write(self, bytes: &mut [u8], datatype: DataType) {
        bytes.fill(0);
        if self == Values::Ones {
            put(bytes, datatype, |_| 1.0);
        }
    }

    fn write_strings(self, tensor: &mut Tensor, count: usize) -> Result<()> {
        let text: &[u8] = if self == Values::Ones { b"1" } else { b"" };
        (0..count).try_for_each(|at| tensor.set_string(at, text))
    }
}

/// Writes numbers as elements of a type; what it cannot hold becomes the nearest that it can.
fn put(bytes: &mut [u8], datatype: DataType, number: impl Fn(usize) -> f64) {
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
