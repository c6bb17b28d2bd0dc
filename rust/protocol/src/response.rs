//! The response to an inference request: its JSON, then the outputs that are sent as binary data.
//!
//! The keys have the order that the protocol's clients know. The outputs have the order of the model.
//! Next: `response/elements`.

pub(crate) mod elements;
mod integers;
mod singles;
mod template;
mod tensor;

use headgate_core::error::Result;

use crate::json_string::write_json;

pub(crate) use elements::{ListStyle, StringStyle};
pub(crate) use integers::write_integer;
pub(crate) use template::write_key;
pub use template::{OutputTemplate, ResponseTemplate};
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
    /// The template of that version, if there is one.
    pub template: Option<&'a ResponseTemplate>,
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
    write_head(out, head);
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

/// Appends what stands in front of the outputs.
fn write_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    let id = head.id.filter(|id| !id.is_empty());
    let start = out.len();
    if let Some(id) = id {
        out.extend_from_slice(b"{\"id\":");
        write_json(id, out);
    }
    let behind_id = out.len();
    match head.template {
        Some(template) => template.write_json(out),
        None => {
            out.push(b'{');
            template::write_names(out, head.model_name, head.model_version);
        }
    }
    if behind_id > start {
        // In place of the brace.
        out[behind_id] = b',';
    }
}

fn write_output(out: &mut Vec<u8>, output: &OutputTensor<'_>) -> Result<()> {
    elements::check(output)?;
    if output.binary {
        match output.fitting_template() {
            Some(template) => template.write_before_size(out, output.shape.rows()),
            None => {
                write_declared(out, output);
                out.extend_from_slice(template::BEFORE_SIZE);
            }
        }
        write_integer(out, false, elements::binary_size(&output.data) as u64);
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    let style = ListStyle::of(output);
    match output.fitting_template() {
        Some(template) => template.write_before_list(out, output.shape.rows()),
        None => {
            write_declared(out, output);
            if style.strings == StringStyle::Base64 {
                out.extend_from_slice(b"],\"parameters\":{\"encoding\":\"base64\"},\"data\":[");
            } else {
                out.extend_from_slice(template::BEFORE_LIST);
            }
        }
    }
    elements::write_json_list(out, output, style)?;
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Appends an output up to the end of its shape.
fn write_declared(out: &mut Vec<u8>, output: &OutputTensor<'_>) {
    template::write_declaration(out, output.name, output.datatype);
    template::write_dims(out, output.shape);
}
