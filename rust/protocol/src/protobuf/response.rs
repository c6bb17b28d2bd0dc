//! `ModelInferResponse`, written field by field. Tensors are always raw.
//!
//! Next: `response`, whose heads and outputs it takes.

use headgate_core::error::Result;

use super::fields::{text_length, varint_length, write_names, write_prefix, write_tensor, write_text};
use crate::response::{OutputTensor, ResponseHead, elements};

/// Appends a response. `marks_final` adds the parameter that marks the last response to a request on a stream.
///
/// # Errors
/// `internal` for an output whose data contradicts its datatype or shape. `out` is then as it was before.
pub fn write(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
    marks_final: bool,
) -> Result<()> {
    let start = out.len();
    let result = write_parts(out, head, outputs, marks_final);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends a `ModelStreamInferResponse` with the error of the request with this id. `code` is a parameter's name and text.
pub fn write_stream_error(out: &mut Vec<u8>, message: &str, id: &str, (name, code): (&str, &str)) {
    let mut response = Vec::new();
    write_text(&mut response, 3, id);
    write_text_parameter(&mut response, name, code);
    write_text(out, 1, message);
    write_prefix(out, 2, response.len());
    out.extend_from_slice(&response);
}

/// Appends a parameter with a text that is not empty to a `ModelInferResponse`, whose fields may come in any order.
pub fn write_text_parameter(out: &mut Vec<u8>, name: &str, text: &str) {
    // An entry of a map: the name, and an InferParameter with its field 3.
    let value = text_length(text);
    write_prefix(out, 4, text_length(name) + 1 + varint_length(value as u64) + value);
    write_text(out, 1, name);
    write_prefix(out, 2, value);
    write_text(out, 3, text);
}

/// Appends what stands in front of a response of `length` bytes in a `ModelStreamInferResponse`.
pub fn write_stream_prefix(out: &mut Vec<u8>, length: usize) {
    write_prefix(out, 2, length);
}

fn write_parts(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
    marks_final: bool,
) -> Result<()> {
    match head.template {
        Some(template) => template.write_protobuf(out),
        None => write_names(out, head.model_name, head.model_version),
    }
    write_text(out, 3, head.id.unwrap_or_default());
    if marks_final {
        // An entry of a map: the name, and an InferParameter with its field 1 set to true.
        let key = "triton_final_response";
        write_prefix(out, 4, 2 + key.len() + 4);
        write_text(out, 1, key);
        write_prefix(out, 2, 2);
        out.extend_from_slice(&[1 << 3, 1]);
    }
    for output in outputs {
        elements::check(output)?;
        match output.fitting_template() {
            Some(template) if template.write_protobuf(out, output.shape.rows()) => {}
            _ => write_tensor(out, output.name, output.datatype.as_str(), output.shape),
        }
    }
    for output in outputs {
        write_prefix(out, 6, elements::binary_size(&output.data));
        elements::write_binary(out, &output.data)?;
    }
    Ok(())
}
