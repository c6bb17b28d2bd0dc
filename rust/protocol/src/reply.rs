//! The answer to an inference request: its JSON, then the outputs that are sent as binary data.
//!
//! Key order as the protocol's clients have always seen it; outputs in the order given, which is the model's.
//! Next: `reply/elements`.

pub(crate) mod elements;

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, Shape};

use crate::strings::{Strings, write_json};

pub(crate) use elements::write_integer;

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
/// `backend_failed` for what JSON cannot carry (NaN, infinities, bytes that are not UTF-8),
/// `invalid_argument` for half precision as JSON, `internal` for an output whose data contradicts its
/// datatype or shape. `out` is then as it was before.
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
    if matches!(output.datatype, DataType::Fp16 | DataType::Bf16) {
        return Err(Error::invalid(format!(
            "output \"{}\": {} cannot be sent as JSON here; ask for binary_data",
            output.name, output.datatype
        )));
    }
    out.extend_from_slice(b"],\"data\":[");
    elements::write_json_list(out, output)?;
    out.extend_from_slice(b"]}");
    Ok(())
}
