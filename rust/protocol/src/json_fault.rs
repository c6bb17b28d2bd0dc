//! What is wrong in JSON, and at which byte. A fault is small, so that hot loops can return it.
//!
//! Not here: messages about tensors, which need the tensor's name and shape (`fault_context`).
//! Next: `json_cursor`.

use std::fmt;

use headgate_core::error::Error;

/// A fault at a byte of the JSON that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonFault {
    /// The offset of the byte, from the start of what was being read.
    pub(crate) at: usize,
    /// The byte there, or `None` at the end.
    pub(crate) found: Option<u8>,
    /// What is wrong with it.
    pub(crate) kind: FaultKind,
}

/// The result of reading some bytes.
pub(crate) type ParseResult<T> = std::result::Result<T, JsonFault>;

/// What is wrong at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Something else belongs here.
    Expected(&'static str),
    /// A control character inside a string.
    ControlCharacter,
    /// A backslash that starts no escape of JSON.
    Escape,
    /// Half of a surrogate pair.
    Surrogate,
    /// Bytes that are not UTF-8.
    Utf8,
    /// Nested deeper than the limit.
    Depth,
    /// A number with a zero in front.
    LeadingZero,
    /// A number that the datatype cannot hold.
    Range,
    /// An element of another kind than the datatype has.
    Element,
    /// Neither a comma nor the end of the list behind an element.
    Separator,
    /// Fewer elements than the shape has.
    TooFew,
    /// More elements than the shape has.
    TooMany,
    /// Nested lists whose depth or lengths contradict the shape.
    Nesting,
    /// Bytes after the end of the value.
    Trailing,
    /// A buffer that is too small. This is a defect of Headgate, not of the request.
    BufferTooSmall,
}

impl JsonFault {
    /// A fault at a byte of `data`.
    #[cold]
    pub(crate) fn new(data: &[u8], at: usize, kind: FaultKind) -> JsonFault {
        JsonFault { at, found: data.get(at).copied(), kind }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JsonFault { at, found, kind } = *self;
        match kind {
            FaultKind::Expected(expected) => {
                write!(f, "at byte {at} {expected} should stand, not {}", FoundByte(found))
            }
            FaultKind::ControlCharacter => {
                write!(
                    f,
                    "at byte {at} a string holds {}; escape control characters as \\u00XX",
                    FoundByte(found)
                )
            }
            FaultKind::Escape => write!(f, "at byte {at} a string has an escape that JSON does not know"),
            FaultKind::Surrogate => {
                write!(
                    f,
                    "at byte {at} a string has half of a surrogate pair; \\uD800-\\uDBFF needs \
                     \\uDC00-\\uDFFF after it"
                )
            }
            FaultKind::Utf8 => write!(f, "at byte {at} a string is not UTF-8"),
            FaultKind::Depth => write!(f, "at byte {at} lists and objects are nested too deep"),
            FaultKind::LeadingZero => write!(f, "at byte {at} a number has a zero in front"),
            FaultKind::Range => write!(f, "at byte {at} a number is out of range"),
            FaultKind::Element => {
                write!(f, "at byte {at} stands {}, which is no such element", FoundByte(found))
            }
            FaultKind::Separator => {
                write!(
                    f,
                    "at byte {at} a comma or the end of the list should stand, not {}",
                    FoundByte(found)
                )
            }
            FaultKind::TooFew => f.write_str("there are too few elements"),
            FaultKind::TooMany => f.write_str("there are too many elements"),
            FaultKind::Nesting => write!(f, "at byte {at} the nesting does not follow the shape"),
            FaultKind::Trailing => write!(f, "at byte {at} something follows the end: {}", FoundByte(found)),
            FaultKind::BufferTooSmall => f.write_str("the buffer is smaller than the shape"),
        }
    }
}

impl From<JsonFault> for Error {
    /// The error for a fault in the JSON part of a body.
    fn from(fault: JsonFault) -> Error {
        Error::invalid(format!("the request is not the JSON it should be: {fault}"))
    }
}

/// A byte, or the end of the bytes, in the words of messages.
struct FoundByte(Option<u8>);

impl fmt::Display for FoundByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the end"),
            Some(byte) if byte.is_ascii_graphic() => write!(f, "`{}`", char::from(byte)),
            Some(b' ') => f.write_str("a space"),
            Some(byte) => write!(f, "the byte 0x{byte:02x}"),
        }
    }
}
