//! BYTES tensors: decoded from lists of JSON strings or from the length-prefixed binary form, into a table of elements.
//!
//! Not here: one JSON string (`json_string`), the nesting of lists (`element_list`).
//! Next: `binary`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape};

use crate::element_list::{ElementSink, too_many, walk};
use crate::fault_context::FaultContext;
use crate::json_cursor::skip_space;
use crate::json_fault::{FaultKind, JsonFault, ParseResult};
use crate::json_string::append;

/// Byte strings one after the other, and the offset of each: the layout of ONNX Runtime's `GetStringTensorContent`.
///
/// A table that is used again allocates only for a tensor that is larger than all before.
#[derive(Clone, Debug, Default)]
pub struct StringTable {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl StringTable {
    /// Removes the elements. The memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Frees the memory and the elements if they take more than `most` bytes.
    pub fn shrink(&mut self, most: usize) {
        if self.bytes.capacity() + self.starts.capacity() * size_of::<usize>() > most {
            *self = StringTable::default();
        }
    }

    /// Adds one element.
    pub fn push(&mut self, element: &[u8]) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(element);
    }

    /// Replaces every element, which is base64, by its bytes.
    ///
    /// # Errors
    /// `invalid_argument` for an element that is not base64.
    pub(crate) fn decode_base64(&mut self, input_name: &str) -> Result<()> {
        let mut decoded = StringTable::default();
        for (index, element) in self.view().iter().enumerate() {
            decoded.starts.push(decoded.bytes.len());
            BASE64.decode_vec(element, &mut decoded.bytes).map_err(|error| {
                Error::invalid(format!("input \"{input_name}\": element {index} is not base64: {error}"))
            })?;
        }
        *self = decoded;
        Ok(())
    }

    /// The elements, borrowed.
    pub fn view(&self) -> StringTableView<'_> {
        StringTableView { bytes: &self.bytes, starts: &self.starts }
    }
}

/// Byte strings, borrowed. Element `i` is `bytes[starts[i]..starts[i + 1]]`; the last one ends with `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct StringTableView<'a> {
    bytes: &'a [u8],
    starts: &'a [usize],
}

impl<'a> StringTableView<'a> {
    /// Checks and wraps the strings of a runtime.
    ///
    /// # Errors
    /// `internal` if the starts do not ascend from 0 within `bytes`.
    pub fn new(bytes: &'a [u8], starts: &'a [usize]) -> Result<StringTableView<'a>> {
        let from_zero = starts.first().map_or(bytes.is_empty(), |&first| first == 0);
        if from_zero && starts.is_sorted() && starts.last().is_none_or(|&last| last <= bytes.len()) {
            return Ok(StringTableView { bytes, starts });
        }
        Err(Error::new(Code::Internal, "the starts of a string tensor do not ascend from 0 within its bytes"))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The elements in `range`, which must be within the table.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> StringTableView<'a> {
        let end = self.starts.get(range.end).copied().unwrap_or(self.bytes.len());
        StringTableView { bytes: &self.bytes[..end], starts: &self.starts[range] }
    }

    /// Whether every element is text.
    pub(crate) fn is_text(&self) -> bool {
        self.iter().all(|element| std::str::from_utf8(element).is_ok())
    }

    /// Element `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.bytes.len());
        self.bytes.get(start..end)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let StringTableView { bytes, starts } = *self;
        (0..starts.len()).map(move |index| StringTableView { bytes, starts }.get(index).unwrap_or_default())
    }

    /// The size of the binary form in bytes: 4 for each element, and its content.
    pub fn binary_size(&self) -> usize {
        let first = self.starts.first().copied().unwrap_or(self.bytes.len());
        4 * self.starts.len() + self.bytes.len() - first
    }

    /// Appends the binary form.
    ///
    /// # Errors
    /// `backend_failed` if an element is longer than a 32-bit length can say. `out` then holds a part.
    pub fn write_binary(&self, out: &mut Vec<u8>) -> Result<()> {
        for element in self.iter() {
            let length = u32::try_from(element.len()).map_err(|_| {
                Error::new(
                    Code::BackendFailed,
                    "a BYTES element of 4 GiB or more cannot be sent as binary data",
                )
            })?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(element);
        }
        Ok(())
    }
}

/// Reads the JSON strings of a `data` list, flat or nested along `shape`, into a table (cleared first).
///
/// An element is the UTF-8 of its string. Memory is bounded by the length of `data`.
///
/// # Errors
/// `invalid_argument` that names `input_name`, the element and what is wrong with it.
pub fn decode_json(data: &[u8], shape: &Shape, out: &mut StringTable, input_name: &str) -> Result<()> {
    out.clear();
    walk(data, shape, &mut StringTableSink { table: out }).map_err(|fault| {
        FaultContext { data, shape, datatype: DataType::Bytes, name: input_name }.error(fault)
    })
}

/// Reads the binary form, `count` elements, into a table (cleared first).
///
/// # Errors
/// `invalid_argument` that names `input_name` if the lengths do not add up to the blob.
pub fn decode_binary(blob: &[u8], count: usize, out: &mut StringTable, input_name: &str) -> Result<()> {
    out.clear();
    for element in binary_elements(blob, count, input_name)? {
        out.push(element);
    }
    Ok(())
}

/// The elements of the binary form, not copied. Each is a 4-byte little-endian length and that many bytes.
///
/// # Errors
/// `invalid_argument` that names `input_name` if the lengths do not add up to the blob.
pub fn binary_elements<'a>(blob: &'a [u8], count: usize, input_name: &str) -> Result<BinaryElements<'a>> {
    let mut rest = blob;
    for index in 0..count {
        let Some((_, after)) = split_element(rest) else {
            return Err(Error::invalid(format!(
                "input \"{input_name}\": element {index} of {count} does not fit in the {} bytes of its \
                 binary data; \
                 each BYTES element is a 4-byte little-endian length and that many bytes",
                blob.len()
            )));
        };
        rest = after;
    }
    if rest.is_empty() {
        return Ok(BinaryElements { rest: blob });
    }
    Err(Error::invalid(format!(
        "input \"{input_name}\": {} bytes are left in its binary data after {count} BYTES elements",
        rest.len()
    )))
}

/// Iterates over a checked blob of length-prefixed elements; made by [`binary_elements`].
#[derive(Clone, Debug)]
pub struct BinaryElements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BinaryElements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (element, rest) = split_element(self.rest)?;
        self.rest = rest;
        Some(element)
    }
}

/// The first element of the binary form, and the bytes behind it.
fn split_element(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

// === impl JSON ===

/// Writes JSON string elements into a table.
struct StringTableSink<'t> {
    table: &'t mut StringTable,
}

impl ElementSink for StringTableSink<'_> {
    fn read_row(&mut self, data: &[u8], mut pos: usize, n: usize) -> ParseResult<usize> {
        pos = skip_space(data, pos);
        if n == 0 {
            return match data.get(pos) {
                Some(b']') => Ok(pos + 1),
                _ => Err(JsonFault::new(data, pos, FaultKind::TooMany)),
            };
        }
        for left in (0..n).rev() {
            match data.get(pos) {
                Some(b'"') => {}
                Some(b']') => return Err(JsonFault::new(data, pos, FaultKind::TooFew)),
                _ => return Err(JsonFault::new(data, pos, FaultKind::Element)),
            }
            self.table.starts.push(self.table.bytes.len());
            pos = skip_space(data, append(data, pos + 1, &mut self.table.bytes)?);
            match (data.get(pos), left) {
                (Some(b','), 1..) => pos = skip_space(data, pos + 1),
                (Some(b']'), 0) => return Ok(pos + 1),
                (Some(b','), 0) => return Err(too_many(data, skip_space(data, pos + 1))),
                (Some(b']'), _) => return Err(JsonFault::new(data, pos, FaultKind::TooFew)),
                _ => return Err(JsonFault::new(data, pos, FaultKind::Separator)),
            }
        }
        Err(JsonFault::new(data, pos, FaultKind::TooFew))
    }
}

#[cfg(test)]
mod tests;
