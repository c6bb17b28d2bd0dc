//! What can be wrong in JSON: a place and a reason, small enough to be returned from the hot loops.
//!
//! Not here: sentences about tensors, which need the tensor's name and shape (`explain`).
//! Next: `cursor`.

use std::fmt;

use headgate_core::error::Error;

/// A fault at a byte of the JSON that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The offset of the byte, from the start of what was being read.
    pub(crate) at: usize,
    /// The byte there, or `None` at the end.
    pub(crate) found: Option<u8>,
    /// What is wrong with it.
    pub(crate) why: Why,
}

/// The result of reading some bytes.
pub(crate) type Scan<T> = std::result::Result<T, Fault>;

/// Why a byte is wrong where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something else belongs here.
    Expected(&'static str),
    /// A control character inside a string.
    Control,
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
    /// An element that is not of the kind the datatype wants.
    Element,
    /// After an element comes neither a comma nor the end of the list.
    Separator,
    /// Fewer elements than the shape has.
    Short,
    /// More elements than the shape has.
    Long,
    /// Nested lists whose depth or lengths contradict the shape.
    Nesting,
    /// Bytes after the end of the value.
    Trailing,
    /// A buffer that the caller made too small: a defect of Headgate, not of the request.
    Buffer,
}

impl Fault {
    /// A fault at a byte of `data`.
    #[cold]
    pub(crate) fn new(data: &[u8], at: usize, why: Why) -> Fault {
        Fault { at, found: data.get(at).copied(), why }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { at, found, why } = *self;
        match why {
            Why::Expected(what) => write!(f, "at byte {at} {what} should stand, not {}", Shown(found)),
            Why::Control => {
                write!(
                    f,
                    "at byte {at} a string holds {}; escape control characters as \\u00XX",
                    Shown(found)
                )
            }
            Why::Escape => write!(f, "at byte {at} a string has an escape that JSON does not know"),
            Why::Surrogate => {
                write!(
                    f,
                    "at byte {at} a string has half of a surrogate pair; \\uD800-\\uDBFF needs \
                     \\uDC00-\\uDFFF after it"
                )
            }
            Why::Utf8 => write!(f, "at byte {at} a string is not UTF-8"),
            Why::Depth => write!(f, "at byte {at} lists and objects are nested too deep"),
            Why::LeadingZero => write!(f, "at byte {at} a number has a zero in front"),
            Why::Range => write!(f, "at byte {at} a number is out of range"),
            Why::Element => write!(f, "at byte {at} stands {}, which is no such element", Shown(found)),
            Why::Separator => {
                write!(f, "at byte {at} a comma or the end of the list should stand, not {}", Shown(found))
            }
            Why::Short => f.write_str("there are too few elements"),
            Why::Long => f.write_str("there are too many elements"),
            Why::Nesting => write!(f, "at byte {at} the nesting does not follow the shape"),
            Why::Trailing => write!(f, "at byte {at} something follows the end: {}", Shown(found)),
            Why::Buffer => f.write_str("the buffer is smaller than the shape"),
        }
    }
}

impl From<Fault> for Error {
    /// The sentence for a fault in the JSON part of a body.
    fn from(fault: Fault) -> Error {
        Error::invalid(format!("the request is not the JSON it should be: {fault}"))
    }
}

/// A byte, or the end, as a reader of messages knows it.
struct Shown(Option<u8>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the end"),
            Some(byte) if byte.is_ascii_graphic() => write!(f, "`{}`", char::from(byte)),
            Some(b' ') => f.write_str("a space"),
            Some(byte) => write!(f, "the byte 0x{byte:02x}"),
        }
    }
}
