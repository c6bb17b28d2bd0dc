//! `InferTensorContents`: elements decoded one by one into a typed slice.
//!
//! Next: `protobuf/response`.

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, Shape};

use super::wire::{FieldReader, WireValue, malformed};
use crate::strings::StringTable;
use crate::typed_slice::TypedSliceMut;

/// Decodes contents into a buffer of `shape.count()` elements.
///
/// # Errors
/// `invalid_argument` for another number of elements, contents of another datatype, or an integer that does not fit.
pub(crate) fn decode_into(
    contents: &[u8],
    shape: &Shape,
    out: TypedSliceMut<'_>,
    input_name: &str,
) -> Result<()> {
    let datatype = out.datatype();
    let tensor = TypedContents { bytes: contents, shape, datatype, name: input_name };
    match out {
        TypedSliceMut::Bool(out) => tensor.varints(out, |value| Some(u8::from(value != 0))),
        TypedSliceMut::Uint8(out) => tensor.varints(out, |value| u8::try_from(value as u32).ok()),
        TypedSliceMut::Uint16(out) => tensor.varints(out, |value| u16::try_from(value as u32).ok()),
        TypedSliceMut::Uint32(out) => tensor.varints(out, |value| Some(value as u32)),
        TypedSliceMut::Uint64(out) => tensor.varints(out, Some),
        TypedSliceMut::Int8(out) => tensor.varints(out, |value| i8::try_from(value as i32).ok()),
        TypedSliceMut::Int16(out) => tensor.varints(out, |value| i16::try_from(value as i32).ok()),
        TypedSliceMut::Int32(out) => tensor.varints(out, |value| Some(value as i32)),
        TypedSliceMut::Int64(out) => tensor.varints(out, |value| Some(value as i64)),
        TypedSliceMut::Fp32(out) => tensor.fixed(out, f32::from_le_bytes, |value| match value {
            WireValue::Fixed32(bits) => Some(bits),
            _ => None,
        }),
        TypedSliceMut::Fp64(out) => tensor.fixed(out, f64::from_le_bytes, |value| match value {
            WireValue::Fixed64(bits) => Some(bits),
            _ => None,
        }),
        TypedSliceMut::Fp16(_) | TypedSliceMut::Bf16(_) => Err(tensor.wrong_list(None)),
    }
}

/// Decodes the elements of a BYTES tensor into a table (cleared first).
///
/// # Errors
/// As [`decode_into`].
pub(crate) fn decode_strings(
    contents: &[u8],
    shape: &Shape,
    out: &mut StringTable,
    input_name: &str,
) -> Result<()> {
    let tensor = TypedContents { bytes: contents, shape, datatype: DataType::Bytes, name: input_name };
    out.clear();
    let (mut left, mut fields) = (shape.count(), FieldReader::new(contents));
    while let Some(value) = tensor.next(&mut fields)? {
        left = left.checked_sub(1).ok_or_else(|| tensor.wrong_count("more"))?;
        out.push(value.bytes("bytes_contents")?);
    }
    if left > 0 { Err(tensor.wrong_count("fewer")) } else { Ok(()) }
}

struct TypedContents<'a> {
    bytes: &'a [u8],
    shape: &'a Shape,
    datatype: DataType,
    name: &'a str,
}

impl<'a> TypedContents<'a> {
    /// The list for elements of the datatype.
    fn list(&self) -> Option<(u32, &'static str)> {
        list_of(self.datatype)
    }

    /// The next field of the right list. Any other list with elements is refused.
    #[inline]
    fn next(&self, fields: &mut FieldReader<'a>) -> Result<Option<WireValue<'a>>> {
        while let Some((number, value)) = fields.next()? {
            if self.list().is_some_and(|(wanted, _)| wanted == number) {
                return Ok(Some(value));
            }
            if (1..=8).contains(&number) && value != WireValue::Bytes(b"") {
                return Err(self.wrong_list(Some(number)));
            }
        }
        Ok(None)
    }

    /// Reads elements that are varints on the wire, packed or one by one.
    fn varints<T>(&self, out: &mut [T], convert: impl Fn(u64) -> Option<T>) -> Result<()> {
        let mut slots = out.iter_mut();
        let mut put = |value: u64| {
            let slot = slots.next().ok_or_else(|| self.wrong_count("more"))?;
            *slot = convert(value).ok_or_else(|| {
                Error::invalid(format!(
                    "input \"{}\": {} is out of range for {}",
                    self.name, value as i64, self.datatype
                ))
            })?;
            Ok::<(), Error>(())
        };
        let mut fields = FieldReader::new(self.bytes);
        while let Some(value) = self.next(&mut fields)? {
            match value {
                WireValue::Varint(value) => put(value)?,
                WireValue::Bytes(packed) => {
                    let mut packed = FieldReader::new(packed);
                    while !packed.rest.is_empty() {
                        put(packed.varint()?)?;
                    }
                }
                _ => return Err(malformed("contents with another wire type")),
            }
        }
        if slots.len() > 0 { Err(self.wrong_count("fewer")) } else { Ok(()) }
    }

    /// Reads elements of a fixed size, packed or one by one.
    fn fixed<T, const N: usize>(
        &self,
        out: &mut [T],
        convert: impl Fn([u8; N]) -> T,
        single: impl Fn(WireValue<'_>) -> Option<[u8; N]>,
    ) -> Result<()> {
        let mut left = out;
        let mut fields = FieldReader::new(self.bytes);
        while let Some(value) = self.next(&mut fields)? {
            let one;
            let elements: &[[u8; N]] = match value {
                WireValue::Bytes(packed) => {
                    let (elements, rest) = packed.as_chunks();
                    if !rest.is_empty() {
                        return Err(malformed("contents that end within an element"));
                    }
                    elements
                }
                value => {
                    one = [single(value).ok_or_else(|| malformed("contents with another wire type"))?];
                    &one
                }
            };
            let (slots, rest) = std::mem::take(&mut left)
                .split_at_mut_checked(elements.len())
                .ok_or_else(|| self.wrong_count("more"))?;
            for (slot, element) in slots.iter_mut().zip(elements) {
                *slot = convert(*element);
            }
            left = rest;
        }
        if left.is_empty() { Ok(()) } else { Err(self.wrong_count("fewer")) }
    }

    fn wrong_count(&self, than: &str) -> Error {
        Error::invalid(format!(
            "input \"{}\": the contents have {than} elements than shape {:?} holds ({})",
            self.name,
            self.shape,
            self.shape.count()
        ))
    }

    fn wrong_list(&self, found: Option<u32>) -> Error {
        let name = |number| {
            LISTS.iter().find(|(known, _)| *known == number).map_or("another list", |(_, name)| name)
        };
        Error::invalid(match (self.list(), found) {
            (Some((_, wanted)), Some(found)) => format!(
                "input \"{}\": {} elements belong in {wanted}, not in {}",
                self.name,
                self.datatype,
                name(found)
            ),
            _ => format!(
                "input \"{}\": {} has no typed contents; send it in raw_input_contents",
                self.name, self.datatype
            ),
        })
    }
}

const LISTS: [(u32, &str); 8] = [
    (1, "bool_contents"),
    (2, "int_contents"),
    (3, "int64_contents"),
    (4, "uint_contents"),
    (5, "uint64_contents"),
    (6, "fp32_contents"),
    (7, "fp64_contents"),
    (8, "bytes_contents"),
];

fn list_of(datatype: DataType) -> Option<(u32, &'static str)> {
    let number = match datatype {
        DataType::Bool => 1,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => 2,
        DataType::Int64 => 3,
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => 4,
        DataType::Uint64 => 5,
        DataType::Fp32 => 6,
        DataType::Fp64 => 7,
        DataType::Bytes => 8,
        DataType::Fp16 | DataType::Bf16 => return None,
    };
    Some(LISTS[number - 1])
}
