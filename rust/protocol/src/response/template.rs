//! The parts of a response that are the same for all requests to a version: names, datatypes and the dimensions of rows, with what stands
//! between them, in the form of each wire. They are made when a version is published, and a request copies them.
//!
//! Whatever differs from the signature (classes in place of values, rows of another size) is written part by part with the functions from
//! which templates are made. Next: `response/elements`.

use headgate_core::tensor::{DataType, ShapeRef, TensorSpec};

use super::integers::write_integer;
use crate::json_string::write_json;
use crate::protobuf::fields;

/// The constant parts of the responses of a version.
#[derive(Debug)]
pub struct ResponseTemplate {
    /// The JSON in front of the outputs, without an id.
    json: Box<[u8]>,
    /// The fields of a protobuf message with the names.
    protobuf: Box<[u8]>,
    /// `None` for an output without constant parts.
    outputs: Box<[Option<OutputTemplate>]>,
}

/// The constant parts of an output whose rows have fixed dimensions.
#[derive(Debug)]
pub struct OutputTemplate {
    datatype: DataType,
    /// The dimensions of a row.
    inner: Box<[i64]>,
    /// The JSON in front of the number of rows.
    json: Box<[u8]>,
    /// The JSON between the number of rows and the elements.
    list: Box<[u8]>,
    /// The JSON between the number of rows and the size of the binary data.
    binary: Box<[u8]>,
    /// The name as a key of a JSON object.
    key: Box<[u8]>,
    /// The `InferOutputTensor` for one row.
    protobuf: Box<[u8]>,
    /// The place of the number of rows in it, which is one byte for less than 128 rows.
    protobuf_rows: usize,
}

/// The rows that fit into one byte of a protobuf message.
const ROWS_IN_A_BYTE: usize = 0x80;

impl ResponseTemplate {
    /// The template of a version with these outputs.
    pub fn new(model_name: &str, model_version: &str, outputs: &[TensorSpec]) -> ResponseTemplate {
        ResponseTemplate {
            json: written(|out| {
                out.push(b'{');
                write_names(out, model_name, model_version);
            }),
            protobuf: written(|out| fields::write_names(out, model_name, model_version)),
            outputs: outputs.iter().map(OutputTemplate::new).collect(),
        }
    }

    /// The template of an output, by its index in the signature.
    pub fn output(&self, index: usize) -> Option<&OutputTemplate> {
        self.outputs.get(index)?.as_ref()
    }

    /// Appends the JSON in front of the outputs, without an id.
    #[inline]
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.json);
    }

    /// Appends the names as fields of a `ModelInferResponse`.
    #[inline]
    pub(crate) fn write_protobuf(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.protobuf);
    }
}

impl OutputTemplate {
    /// The template of an output; `None` if the dimensions of its rows are open, and for strings, which say how they are encoded.
    fn new(spec: &TensorSpec) -> Option<OutputTemplate> {
        let (_, inner) = spec.shape.split_first()?;
        if spec.any_rank || spec.datatype == DataType::Bytes || inner.iter().any(|&dim| dim < 0) {
            return None;
        }
        let dims = [&[1][..], inner].concat();
        let row = ShapeRef::new(&dims).ok()?;
        let protobuf = written(|out| fields::write_tensor(out, &spec.name, spec.datatype.as_str(), row));
        let packed: usize = row.dims().map(|dim| fields::varint_length(dim as u64)).sum();
        let behind_rows = |end: &[u8]| {
            written(|out| {
                write_inner_dims(out, inner);
                out.extend_from_slice(end);
            })
        };
        Some(OutputTemplate {
            datatype: spec.datatype,
            inner: inner.into(),
            json: written(|out| write_declaration(out, &spec.name, spec.datatype)),
            list: behind_rows(BEFORE_LIST),
            binary: behind_rows(BEFORE_SIZE),
            key: written(|out| write_key(out, &spec.name)),
            // The shape is the last field, and the rows are its first byte.
            protobuf_rows: protobuf.len() - packed,
            protobuf,
        })
    }

    /// Whether it is that of an output of this type and shape.
    #[inline]
    pub(crate) fn fits(&self, datatype: DataType, shape: ShapeRef<'_>) -> bool {
        let inner = shape.inner();
        datatype == self.datatype
            && shape.rank() == 1 + self.inner.len()
            && inner.iter().zip(&self.inner).all(|(one, other)| one == other)
    }

    /// Appends the JSON in front of the elements.
    #[inline]
    pub(crate) fn write_before_list(&self, out: &mut Vec<u8>, rows: usize) {
        out.extend_from_slice(&self.json);
        write_integer(out, false, rows as u64);
        out.extend_from_slice(&self.list);
    }

    /// Appends the JSON in front of the size of the binary data.
    #[inline]
    pub(crate) fn write_before_size(&self, out: &mut Vec<u8>, rows: usize) {
        out.extend_from_slice(&self.json);
        write_integer(out, false, rows as u64);
        out.extend_from_slice(&self.binary);
    }

    /// Appends the name as a key of a JSON object.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
    }

    /// Appends an `InferOutputTensor`. Returns false, and appends nothing, for more rows than a byte holds.
    #[inline]
    pub(crate) fn write_protobuf(&self, out: &mut Vec<u8>, rows: usize) -> bool {
        let at = out.len() + self.protobuf_rows;
        if rows >= ROWS_IN_A_BYTE {
            return false;
        }
        out.extend_from_slice(&self.protobuf);
        out[at] = rows as u8;
        true
    }
}

/// What stands between a shape and the elements.
pub(super) const BEFORE_LIST: &[u8] = b"],\"data\":[";
/// What stands between a shape and the size of the binary data.
pub(super) const BEFORE_SIZE: &[u8] = b"],\"parameters\":{\"binary_data_size\":";

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
    let mut out = Vec::new();
    write(&mut out);
    out.into()
}

/// Appends the names up to the list of outputs.
pub(super) fn write_names(out: &mut Vec<u8>, model_name: &str, model_version: &str) {
    out.extend_from_slice(b"\"model_name\":");
    write_json(model_name, out);
    out.extend_from_slice(b",\"model_version\":");
    write_json(model_version, out);
    out.extend_from_slice(b",\"outputs\":[");
}

/// Appends an output up to its shape.
pub(super) fn write_declaration(out: &mut Vec<u8>, name: &str, datatype: DataType) {
    out.extend_from_slice(b"{\"name\":");
    write_json(name, out);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(datatype.as_str().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
}

/// Appends the dimensions of a shape.
pub(super) fn write_dims(out: &mut Vec<u8>, shape: ShapeRef<'_>) {
    if shape.rank() > 0 {
        write_integer(out, false, shape.rows() as u64);
        write_inner_dims(out, shape.inner());
    }
}

/// Appends the dimensions behind the first one. None is negative.
fn write_inner_dims(out: &mut Vec<u8>, inner: &[i64]) {
    for dim in inner {
        out.push(b',');
        write_integer(out, false, dim.unsigned_abs());
    }
}

/// Appends a name as a key of an object.
pub(crate) fn write_key(out: &mut Vec<u8>, name: &str) {
    write_json(name, out);
    out.push(b':');
}
