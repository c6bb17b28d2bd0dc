//! Fields of a protobuf message, written one by one.
//!
//! Next: `protobuf/response`.

use headgate_core::tensor::ShapeRef;

use super::wire::LENGTH_DELIMITED;

/// A string field; an empty one is left out, as proto3 does.
pub(crate) fn write_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        write_prefix(out, number, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

/// The bytes that [`write_text`] writes for a field number below 16.
pub(crate) fn text_length(text: &str) -> usize {
    if text.is_empty() { 0 } else { 1 + varint_length(text.len() as u64) + text.len() }
}

/// A length-prefixed field's tag and length.
pub(crate) fn write_prefix(out: &mut Vec<u8>, number: u32, length: usize) {
    write_varint(out, u64::from(number << 3 | LENGTH_DELIMITED));
    write_varint(out, length as u64);
}

/// The name and the version of a model in a `ModelInferResponse`.
pub(crate) fn write_names(out: &mut Vec<u8>, model_name: &str, model_version: &str) {
    write_text(out, 1, model_name);
    write_text(out, 2, model_version);
}

/// An `InferOutputTensor` of a `ModelInferResponse`: name, datatype, shape.
pub(crate) fn write_tensor(out: &mut Vec<u8>, name: &str, datatype: &str, shape: ShapeRef<'_>) {
    let packed: usize = shape.dims().map(|dim| varint_length(dim as u64)).sum();
    let dims = if packed == 0 { 0 } else { 1 + varint_length(packed as u64) + packed };
    write_prefix(out, 5, text_length(name) + text_length(datatype) + dims);
    write_text(out, 1, name);
    write_text(out, 2, datatype);
    if packed > 0 {
        write_prefix(out, 3, packed);
        shape.dims().for_each(|dim| write_varint(out, dim as u64));
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes of a varint.
pub(crate) fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
