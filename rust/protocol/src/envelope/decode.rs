//! The elements of an input, decoded from wherever the request has them.
//!
//! Next: `numbers`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::DataType;

use super::types::{InputEnvelope, Source};
use crate::protobuf::contents;
use crate::strings::StringTable;
use crate::typed::TypedMut;
use crate::{binary, numbers, strings};

impl InputEnvelope<'_> {
    /// Decodes the elements, from JSON or binary data, into a buffer of the input's datatype with
    /// `shape.count()` elements.
    ///
    /// # Errors
    /// `invalid_argument` for elements that are wrong; `internal` for a buffer of another datatype or length.
    pub fn decode_into(&self, out: TypedMut<'_>) -> Result<()> {
        binary::check_buffer(&out, self.datatype, &self.shape, &self.name)?;
        match self.source {
            Source::Json(data) => numbers::decode_with(data, &self.shape, out, &self.name, self.non_finite),
            Source::Element(value) => {
                numbers::decode_with(&listed(value), &self.shape, out, &self.name, self.non_finite)
            }
            Source::Binary(blob) => binary::copy_into(blob, &self.shape, out, &self.name),
            Source::Typed(contents) => contents::decode_into(contents, &self.shape, out, &self.name),
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
            Source::Json(data) => self.decode_json_strings(data, out),
            Source::Element(value) => self.decode_json_strings(&listed(value), out),
            Source::Binary(blob) => strings::decode_binary(blob, self.shape.count(), out, &self.name),
            Source::Typed(contents) => contents::decode_strings(contents, &self.shape, out, &self.name),
        }
    }

    fn decode_json_strings(&self, data: &[u8], out: &mut StringTable) -> Result<()> {
        strings::decode_json(data, &self.shape, out, &self.name)?;
        if self.base64 { out.decode_base64(&self.name) } else { Ok(()) }
    }
}

/// A single value as the list of it, for decoders that read lists.
fn listed(value: &[u8]) -> Vec<u8> {
    [b"[", value, b"]"].concat()
}
