//! Decoding the elements of an input, from JSON, binary data or protobuf.
//!
//! Next: `numbers`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::DataType;

use super::types::{ElementSource, InputTensor};
use crate::protobuf::contents;
use crate::strings::StringTable;
use crate::typed_slice::TypedSliceMut;
use crate::{binary, numbers, strings};

impl InputTensor<'_> {
    /// Decodes the elements into a buffer of the input's datatype with `shape.count()` elements.
    ///
    /// # Errors
    /// `invalid_argument` for elements that are wrong; `internal` for a buffer of another datatype or length.
    pub fn decode_into(&self, out: TypedSliceMut<'_>) -> Result<()> {
        binary::check_buffer(&out, self.datatype, &self.shape, &self.name)?;
        match self.source {
            ElementSource::JsonList(data) => {
                numbers::decode_non_finite(data, &self.shape, out, &self.name, self.non_finite)
            }
            ElementSource::JsonScalar(value) => {
                numbers::decode_non_finite(&as_list(value), &self.shape, out, &self.name, self.non_finite)
            }
            ElementSource::Binary(blob) => binary::copy_into(blob, &self.shape, out, &self.name),
            ElementSource::ProtobufContents(contents) => {
                contents::decode_into(contents, &self.shape, out, &self.name)
            }
        }
    }

    /// Decodes the elements of a BYTES input into a table (cleared first).
    ///
    /// # Errors
    /// `invalid_argument` for elements that are wrong; `internal` for an input of another datatype.
    pub fn decode_strings(&self, out: &mut StringTable) -> Result<()> {
        if self.datatype != DataType::Bytes {
            return Err(Error::new(
                Code::Internal,
                format!("input \"{}\": {} was decoded as BYTES", self.name, self.datatype),
            ));
        }
        match self.source {
            ElementSource::JsonList(data) => self.decode_json_strings(data, out),
            ElementSource::JsonScalar(value) => self.decode_json_strings(&as_list(value), out),
            ElementSource::Binary(blob) => strings::decode_binary(blob, self.shape.count(), out, &self.name),
            ElementSource::ProtobufContents(contents) => {
                contents::decode_strings(contents, &self.shape, out, &self.name)
            }
        }
    }

    fn decode_json_strings(&self, data: &[u8], out: &mut StringTable) -> Result<()> {
        strings::decode_json(data, &self.shape, out, &self.name)?;
        if self.base64 { out.decode_base64(&self.name) } else { Ok(()) }
    }
}

/// A list of the single value, for decoders that read lists.
fn as_list(value: &[u8]) -> Vec<u8> {
    [b"[", value, b"]"].concat()
}
