//! The answer to an inference request: its JSON, then the outputs that are sent as binary data.
//!
//! Key order as the protocol's clients have always seen it; outputs in the order given, which is the model's.
//! Next: `reply/elements`.

pub(crate) mod elements;

use headgate_core::error::Result;
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape};

use crate::strings::{Strings, write_json};

pub(crate) use elements::{StringStyle, Style, write_integer};

/// What stands in front of the outputs.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead<'a> {
    /// The request's id; left out where absent or empty.
    pub id: Option<&'a str>,
    /// The endpoint.
    pub model_name: &'a str,
    /// The version that answered.
    pub model_version: &'a str,
}

/// One output.
#[derive(Clone, Copy, Debug)]
pub struct OutputTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, `shape.count()` of them.
    pub data: TensorData<'a>,
    /// Whether it is sent as binary data; else as JSON.
    pub binary: bool,
    /// What JSON says where a number is none.
    pub non_finite: NonFinite,
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
    Strings(Strings<'a>),
}

impl<'a> OutputTensor<'a> {
    /// One row: the elements at one index of the first dimension. Its shape stays the whole tensor's.
    pub(crate) fn row(&self, row: usize) -> OutputTensor<'a> {
        let width = self.shape.count().checked_div(self.shape.rows()).unwrap_or(0);
        OutputTensor { data: self.data.slice(row * width..(row + 1) * width, self.datatype), ..*self }
    }
}

impl<'a> TensorData<'a> {
    /// Elements `range`, which must lie within.
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

/// Where the parts of a written answer end, in bytes from where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyBody {
    /// The length of the JSON: the value of `Inference-Header-Content-Length` where binary data follows.
    pub json_len: usize,
    /// The length of everything.
    pub total_len: usize,
}

impl ReplyBody {
    /// Whether binary data follows the JSON, so that the answer needs the header and is
    /// `application/octet-stream`.
    pub fn has_binary(&self) -> bool {
        self.total_len > self.json_len
    }
}

/// Appends an answer to `out`.
///
/// # Errors
/// `invalid_argument` for NaN and infinities where the endpoint has no word for them in JSON, `internal` for an
/// output whose data contradicts its datatype or shape. `out` is then as it was before.
pub fn write(out: &mut Vec<u8>, head: &ReplyHead<'_>, outputs: &[OutputTensor<'_>]) -> Result<ReplyBody> {
    let start = out.len();
    let result = write_parts(out, head, outputs);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_parts(out: &mut Vec<u8>, head: &ReplyHead<'_>, outputs: &[OutputTensor<'_>]) -> Result<ReplyBody> {
    let start = out.len();
    out.push(b'{');
    if let Some(id) = head.id.filter(|id| !id.is_empty()) {
        out.extend_from_slice(b"\"id\":");
        write_json(id, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    write_json(head.model_name, out);
    out.extend_from_slice(b",\"model_version\":");
    write_json(head.model_version, out);
    out.extend_from_slice(b",\"outputs\":[");
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_output(out, output)?;
    }
    out.extend_from_slice(b"]}");
    let json_len = out.len() - start;
    for output in outputs.iter().filter(|output| output.binary) {
        elements::write_binary(out, &output.data)?;
    }
    Ok(ReplyBody { json_len, total_len: out.len() - start })
}

fn write_output(out: &mut Vec<u8>, output: &OutputTensor<'_>) -> Result<()> {
    elements::check(output)?;
    out.extend_from_slice(b"{\"name\":");
    write_json(output.name, out);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(output.datatype.as_str().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    for (index, &dim) in output.shape.dims().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        elements::write_integer(out, dim < 0, dim.unsigned_abs());
    }
    if output.binary {
        out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
        elements::write_integer(out, false, elements::binary_size(&output.data) as u64);
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    let style = Style::of(output);
    let encoding: &[u8] = match style.strings {
        StringStyle::Base64 => b",\"parameters\":{\"encoding\":\"base64\"}",
        _ => b"",
    };
    out.push(b']');
    out.extend_from_slice(encoding);
    out.extend_from_slice(b",\"data\":[");
    elements::write_json_list(out, output, style)?;
    out.extend_from_slice(b"]}");
    Ok(())
}
