//! What is found in a `ModelInferRequest` without reading it through.
//!
//! Next: `protobuf/request`, which reads all of it.

use std::ops::Range;

use headgate_core::error::{Error, Result};

use super::request::read_parameter;
use super::wire::{FieldReader, WireValue};
use crate::envelope::{MAX_TENSORS, ParameterValue, range_within};

/// The most fields of a message whose names are found before it is read through: a thread that serves others looks at each.
/// No message that can be read has as many.
const MAX_FIELDS: usize = 8 * MAX_TENSORS;

/// Whom a `ModelInferRequest` is for, without reading the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelName<'a> {
    /// The endpoint.
    pub name: &'a str,
    /// The version, if the client names one.
    pub version: Option<&'a str>,
}

/// Where the names of a `ModelInferRequest` stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRanges {
    name: Range<usize>,
    version: Option<Range<usize>>,
}

impl ModelName<'_> {
    /// Where they stand in the message that they were found in.
    pub fn ranges(&self, message: &[u8]) -> NameRanges {
        let range = |name: &str| range_within(name.as_bytes(), message);
        NameRanges { name: range(self.name), version: self.version.map(range) }
    }
}

impl NameRanges {
    /// The names in the message that they were found in.
    ///
    /// # Panics
    /// In another message.
    pub fn names<'a>(&self, message: &'a [u8]) -> ModelName<'a> {
        let text = |range: &Range<usize>| {
            std::str::from_utf8(&message[range.clone()]).expect("a name was text when it was found")
        };
        ModelName { name: text(&self.name), version: self.version.as_ref().map(text) }
    }
}

/// Finds the names of a `ModelInferRequest`: the last ones count, as for every field of protobuf.
///
/// # Errors
/// `invalid_argument` for a message whose fields cannot be told apart or are too many, and for names that are not UTF-8.
pub fn model_name(message: &[u8]) -> Result<ModelName<'_>> {
    let mut fields = FieldReader::new(message);
    let mut found = ModelName { name: "", version: None };
    let mut count = 0;
    while let Some((number, value)) = fields.next()? {
        count += 1;
        if count > MAX_FIELDS {
            return Err(Error::invalid(format!("a ModelInferRequest has at most {MAX_FIELDS} fields")));
        }
        match number {
            1 => found.name = value.text("model_name")?,
            2 => found.version = Some(value.text("model_version")?).filter(|name| !name.is_empty()),
            _ => {}
        }
    }
    Ok(found)
}

/// The id of a `ModelInferRequest`, which may be malformed. Empty if it has no id that can be read.
pub fn request_id(message: &[u8]) -> &str {
    let mut fields = FieldReader::new(message);
    let mut id = "";
    for _ in 0..MAX_FIELDS {
        let Ok(Some((number, value))) = fields.next() else { break };
        if number == 3 {
            id = value.text("id").unwrap_or_default();
        }
    }
    id
}

/// Whether a `ModelInferRequest`, which may be malformed, has a parameter of this name that is true.
pub fn is_flagged(message: &[u8], name: &str) -> bool {
    let mut fields = FieldReader::new(message);
    for _ in 0..MAX_FIELDS {
        match fields.next() {
            Ok(Some((4, WireValue::Bytes(entry)))) => {
                if let Ok((key, ParameterValue::Bool(true))) = read_parameter(entry)
                    && key == name
                {
                    return true;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
    false
}

/// The offset of the first raw contents of 16 KiB or more in the beginning of a `ModelInferRequest`. The beginning may end
/// within these contents.
pub fn first_large_tensor(piece: &[u8]) -> Option<usize> {
    const LARGE: u64 = 16 << 10;
    let mut fields = FieldReader::new(piece);
    while !fields.rest.is_empty() {
        let mut ahead = fields;
        let (tag, length) = (ahead.varint().ok()?, ahead.varint().ok()?);
        if tag == (7 << 3 | 2) && length >= LARGE {
            return Some(piece.len() - ahead.rest.len());
        }
        fields.next().ok()?;
    }
    None
}
