//! One output of a response: its name, type, shape and elements.
//!
//! Next: `response/elements`.

use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef};

use super::template::OutputTemplate;
use crate::strings::StringTableView;

/// One output.
#[derive(Clone, Copy, Debug)]
pub struct OutputTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: ShapeRef<'a>,
    /// Its elements, `shape.count()` of them.
    pub data: TensorData<'a>,
    /// Whether it is sent as binary data; else as JSON.
    pub binary: bool,
    /// How JSON writes NaN and infinities.
    pub non_finite: NonFinite,
    /// The template of an output with this name, if there is one.
    pub template: Option<&'a OutputTemplate>,
}

/// The elements of an output, row-major.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// UINT8, or BOOL with each element 0 or 1.
    Uint8(&'a [u8]),
    /// UINT16, or the bits of FP16 or BF16.
    Uint16(&'a [u16]),
    /// UINT32.
    Uint32(&'a [u32]),
    /// UINT64.
    Uint64(&'a [u64]),
    /// INT8.
    Int8(&'a [i8]),
    /// INT16.
    Int16(&'a [i16]),
    /// INT32.
    Int32(&'a [i32]),
    /// INT64.
    Int64(&'a [i64]),
    /// FP32.
    Fp32(&'a [f32]),
    /// FP64.
    Fp64(&'a [f64]),
    /// Any datatype of fixed size as little-endian bytes.
    Raw(&'a [u8]),
    /// BYTES.
    Strings(StringTableView<'a>),
}

impl<'a> OutputTensor<'a> {
    /// The template, if the output has its type and the dimensions of its rows.
    #[inline]
    pub(crate) fn fitting_template(&self) -> Option<&'a OutputTemplate> {
        self.template.filter(|template| template.fits(self.datatype, self.shape))
    }

    /// One row: the elements at one index of the first dimension. Its shape is the shape of the whole tensor.
    pub(crate) fn row(&self, row: usize) -> OutputTensor<'a> {
        let width = self.shape.count().checked_div(self.shape.rows()).unwrap_or(0);
        OutputTensor { data: self.data.slice(row * width..(row + 1) * width, self.datatype), ..*self }
    }
}

impl<'a> TensorData<'a> {
    /// The elements in `range`, which must be within the tensor.
    fn slice(&self, range: std::ops::Range<usize>, datatype: DataType) -> TensorData<'a> {
        match *self {
            TensorData::Uint8(data) => TensorData::Uint8(&data[range]),
            TensorData::Uint16(data) => TensorData::Uint16(&data[range]),
            TensorData::Uint32(data) => TensorData::Uint32(&data[range]),
            TensorData::Uint64(data) => TensorData::Uint64(&data[range]),
            TensorData::Int8(data) => TensorData::Int8(&data[range]),
            TensorData::Int16(data) => TensorData::Int16(&data[range]),
            TensorData::Int32(data) => TensorData::Int32(&data[range]),
            TensorData::Int64(data) => TensorData::Int64(&data[range]),
            TensorData::Fp32(data) => TensorData::Fp32(&data[range]),
            TensorData::Fp64(data) => TensorData::Fp64(&data[range]),
            TensorData::Raw(data) => {
                let size = datatype.size().unwrap_or(1);
                TensorData::Raw(&data[range.start * size..range.end * size])
            }
            TensorData::Strings(strings) => TensorData::Strings(strings.slice(range)),
        }
    }
}
