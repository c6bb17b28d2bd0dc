//! The message for a fault in tensor data. It names the input, the element and what would be right.
//!
//! This runs only if a request is refused.
//!
//! Next: `typed_slice`.

use headgate_core::error::Error;
use headgate_core::tensor::{DataType, Shape};

use crate::json_cursor::skip_space;
use crate::json_fault::{FaultKind, JsonFault};

/// The most bytes of a wrong element that a message shows.
const MAX_SHOWN_BYTES: usize = 40;

/// What a message about a `data` list needs.
pub(crate) struct FaultContext<'a> {
    /// The list, brackets included.
    pub(crate) data: &'a [u8],
    /// The shape that the input declares.
    pub(crate) shape: &'a Shape,
    /// The datatype that the input declares.
    pub(crate) datatype: DataType,
    /// The name of the input.
    pub(crate) name: &'a str,
}

impl FaultContext<'_> {
    /// The error for a fault.
    #[cold]
    pub(crate) fn error(&self, fault: JsonFault) -> Error {
        let FaultContext { data, shape, datatype, name } = *self;
        let text = match fault.kind {
            FaultKind::TooFew | FaultKind::TooMany | FaultKind::Nesting => self.count_or_nesting(),
            FaultKind::Range => {
                format!("element {} is {}, {}", self.index(fault), self.token(fault), range_message(datatype))
            }
            FaultKind::LeadingZero => {
                format!("element {} is {}: JSON has no zeros in front", self.index(fault), self.token(fault))
            }
            FaultKind::Element if data.get(fault.at) == Some(&b'[') => self.count_or_nesting(),
            FaultKind::Element if is_non_finite(&self.token(fault)) => format!(
                "element {} is {}: JSON has no NaN or Infinity; send the tensor as binary data, or such values in \
                 the words that the endpoint's answers.non_finite allows",
                self.index(fault),
                self.token(fault)
            ),
            FaultKind::Element if is_float(datatype) && is_word(&self.token(fault)) => format!(
                "element {} is {}, which the endpoint's answers.non_finite does not allow; allow it there, or send \
                 the tensor as binary data",
                self.index(fault),
                self.token(fault)
            ),
            FaultKind::Element => {
                format!(
                    "element {} is {}, {datatype} wants {}",
                    self.index(fault),
                    self.token(fault),
                    expected_elements(datatype)
                )
            }
            FaultKind::Separator if matches!(fault.found, Some(b'.' | b'e' | b'E')) => {
                format!(
                    "element {} is {}, {datatype} wants {}",
                    self.index(fault),
                    self.token(fault),
                    expected_elements(datatype)
                )
            }
            FaultKind::BufferTooSmall => format!("the buffer is smaller than shape {shape:?}"),
            _ => format!("\"data\" is not the JSON it should be: {fault} (counted from its bracket)"),
        };
        Error::invalid(format!("input \"{name}\": {text}"))
    }

    fn count_or_nesting(&self) -> String {
        let FaultContext { data, shape, .. } = *self;
        let (want, have) = (shape.count(), count(data));
        if want != have {
            return count_message(shape, have);
        }
        format!(
            "the lists of \"data\" are not nested as shape {shape:?} is; nest them so, or send one flat list"
        )
    }

    /// The index of the element in which the fault lies.
    fn index(&self, fault: JsonFault) -> usize {
        count(&self.data[..self.start(fault.at)])
    }

    /// The offset of the first byte of the element in which the fault lies.
    fn start(&self, at: usize) -> usize {
        if self.datatype == DataType::Bytes {
            return at;
        }
        let before = &self.data[..at.min(self.data.len())];
        before.iter().rposition(|byte| b"[, \n\r\t".contains(byte)).map_or(0, |last| last + 1)
    }

    /// The element in which the fault lies, shortened.
    fn token(&self, fault: JsonFault) -> String {
        let start = self.start(fault.at);
        let rest = &self.data[start..];
        let end = rest.iter().position(|byte| b"],} \n\r\t".contains(byte)).unwrap_or(rest.len());
        let shown = String::from_utf8_lossy(&rest[..end.min(MAX_SHOWN_BYTES)]).into_owned();
        match end {
            0 => "missing".into(),
            1..=MAX_SHOWN_BYTES => shown,
            _ => format!("{shown}..."),
        }
    }
}

/// The message about a number of elements that contradicts a shape.
pub(crate) fn count_message(shape: &Shape, have: usize) -> String {
    format!("shape {shape:?} needs {} elements, data has {have}", shape.count())
}

/// The number of elements in a list or in its beginning. An element is what stands between brackets and commas; a string is
/// one element.
pub(crate) fn count(data: &[u8]) -> usize {
    let mut elements = 0;
    let mut pos = 0;
    while pos < data.len() {
        pos = match data[pos] {
            b'[' | b']' | b',' => pos + 1,
            b' ' | b'\n' | b'\r' | b'\t' => skip_space(data, pos),
            b'"' => {
                elements += 1;
                string_end(data, pos + 1)
            }
            _ => {
                elements += 1;
                let rest = &data[pos..];
                pos + rest.iter().position(|byte| b"[], \n\r\t\"".contains(byte)).unwrap_or(rest.len()).max(1)
            }
        };
    }
    elements
}

fn string_end(data: &[u8], mut pos: usize) -> usize {
    while let Some(&byte) = data.get(pos) {
        match byte {
            b'"' => return pos + 1,
            b'\\' => pos += 2,
            _ => pos += 1,
        }
    }
    pos
}

fn is_non_finite(token: &str) -> bool {
    let token = token.trim_start_matches(['-', '+']).to_ascii_lowercase();
    token.starts_with("nan") || token.starts_with("inf")
}

fn is_float(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// Whether an element is a word that some endpoint allows for NaN or infinity.
fn is_word(token: &str) -> bool {
    matches!(token, "null" | "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"")
}

/// What an element of a datatype is in JSON.
fn expected_elements(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "true or false",
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => "numbers",
        DataType::Bytes => "strings",
        _ => "whole numbers without fraction or exponent",
    }
}

/// Why a number is out of range.
fn range_message(datatype: DataType) -> String {
    let (least, largest): (i64, u64) = match datatype {
        DataType::Uint8 => (0, u8::MAX.into()),
        DataType::Uint16 => (0, u16::MAX.into()),
        DataType::Uint32 => (0, u32::MAX.into()),
        DataType::Uint64 => (0, u64::MAX),
        DataType::Int8 => (i8::MIN.into(), i8::MAX as u64),
        DataType::Int16 => (i16::MIN.into(), i16::MAX as u64),
        DataType::Int32 => (i32::MIN.into(), i32::MAX as u64),
        DataType::Int64 => (i64::MIN, i64::MAX as u64),
        _ => return format!("more than {datatype} can hold"),
    };
    format!("outside the range of {datatype}, {least} to {largest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_in_every_form() {
        for (data, want) in [
            ("[]", 0),
            ("[1]", 1),
            ("[[1,2],[3 , 4]]", 4),
            (r#"["a,b","]"]"#, 2),
            (r#"["\"",""#, 2),
            ("[1,,2", 2),
            ("", 0),
            ("[true,nan]", 2),
        ] {
            assert_eq!(count(data.as_bytes()), want, "{data}");
        }
    }
}
