//! The response to an inference request: its JSON, then the outputs that are sent as binary data.
//!
//! The keys have the order that the protocol's clients know. The outputs have the order of the model.
//! Next: `response/elements`.

pub(crate) mod elements;
mod tensor;

use headgate_core::error::Result;

use crate::json_string::write_json;

pub(crate) use elements::{ListStyle, StringStyle, write_integer};
pub use tensor::{OutputTensor, TensorData};

/// The fields in front of the outputs.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The request's id. It is left out if absent or empty.
    pub id: Option<&'a str>,
    /// The endpoint.
    pub model_name: &'a str,
    /// The version that ran.
    pub model_version: &'a str,
}

/// The lengths of a written response and its parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLengths {
    /// The length of the JSON: the value of `Inference-Header-Content-Length` if binary data follows.
    pub json_len: usize,
    /// The length of the whole response.
    pub total_len: usize,
}

impl ResponseLengths {
    /// Whether binary data follows the JSON. The response then needs the header and is `application/octet-stream`.
    pub fn has_binary(&self) -> bool {
        self.total_len > self.json_len
    }
}

/// Appends a response to `out`.
///
/// # Errors
/// `invalid_argument` for NaN and infinities if the endpoint has no word for them in JSON; `internal` for an output whose data
/// contradicts its datatype or shape. `out` is then as it was before.
pub fn write(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
) -> Result<ResponseLengths> {
    let start = out.len();
    let result = write_parts(out, head, outputs);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_parts(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
) -> Result<ResponseLengths> {
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
    Ok(ResponseLengths { json_len, total_len: out.len() - start })
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
    let style = ListStyle::of(output);
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
