//! The elements of outputs, as JSON and as binary data.
//!
//! Next: `metadata`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef};

use super::integers::write_integer;
use super::singles::write_single;
use super::tensor::{OutputTensor, TensorData};
use crate::json_string::{write_json, write_json_base64};
use crate::strings::StringTableView;

/// Checks that data, datatype and shape of an output agree.
pub(crate) fn check(output: &OutputTensor<'_>) -> Result<()> {
    let OutputTensor { datatype, shape, data, .. } = output;
    let count = match (data, datatype) {
        (TensorData::Uint8(data), DataType::Uint8 | DataType::Bool) => Some(data.len()),
        (TensorData::Uint16(data), DataType::Uint16 | DataType::Fp16 | DataType::Bf16) => Some(data.len()),
        (TensorData::Uint32(data), DataType::Uint32) => Some(data.len()),
        (TensorData::Uint64(data), DataType::Uint64) => Some(data.len()),
        (TensorData::Int8(data), DataType::Int8) => Some(data.len()),
        (TensorData::Int16(data), DataType::Int16) => Some(data.len()),
        (TensorData::Int32(data), DataType::Int32) => Some(data.len()),
        (TensorData::Int64(data), DataType::Int64) => Some(data.len()),
        (TensorData::Fp32(data), DataType::Fp32) => Some(data.len()),
        (TensorData::Fp64(data), DataType::Fp64) => Some(data.len()),
        (TensorData::Strings(data), DataType::Bytes) => Some(data.len()),
        (TensorData::Raw(data), datatype) => {
            datatype.size().filter(|size| data.len() % size == 0).map(|size| data.len() / size)
        }
        _ => None,
    };
    if count == Some(shape.count()) {
        return Ok(());
    }
    Err(Error::new(
        Code::Internal,
        format!("output \"{}\": its data is not {datatype} of shape {shape:?}", output.name),
    ))
}

/// The size of the binary form, in bytes.
pub(crate) fn binary_size(data: &TensorData<'_>) -> usize {
    match data {
        TensorData::Uint8(data) | TensorData::Raw(data) => data.len(),
        TensorData::Uint16(data) => size_of_val(*data),
        TensorData::Uint32(data) => size_of_val(*data),
        TensorData::Uint64(data) => size_of_val(*data),
        TensorData::Int8(data) => size_of_val(*data),
        TensorData::Int16(data) => size_of_val(*data),
        TensorData::Int32(data) => size_of_val(*data),
        TensorData::Int64(data) => size_of_val(*data),
        TensorData::Fp32(data) => size_of_val(*data),
        TensorData::Fp64(data) => size_of_val(*data),
        TensorData::Strings(data) => data.binary_size(),
    }
}

/// Appends the binary form.
pub(crate) fn write_binary(out: &mut Vec<u8>, data: &TensorData<'_>) -> Result<()> {
    macro_rules! little_endian {
        ($data:expr) => {
            for element in *$data {
                out.extend_from_slice(&element.to_le_bytes());
            }
        };
    }
    out.reserve(binary_size(data));
    match data {
        TensorData::Uint8(data) | TensorData::Raw(data) => out.extend_from_slice(data),
        TensorData::Uint16(data) => little_endian!(data),
        TensorData::Uint32(data) => little_endian!(data),
        TensorData::Uint64(data) => little_endian!(data),
        TensorData::Int8(data) => little_endian!(data),
        TensorData::Int16(data) => little_endian!(data),
        TensorData::Int32(data) => little_endian!(data),
        TensorData::Int64(data) => little_endian!(data),
        TensorData::Fp32(data) => little_endian!(data),
        TensorData::Fp64(data) => little_endian!(data),
        TensorData::Strings(data) => data.write_binary(out)?,
    }
    Ok(())
}

/// How elements are written in JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListStyle<'s> {
    pub(crate) non_finite: NonFinite,
    pub(crate) strings: StringStyle,
    /// The shape of nested lists; a scalar's for a flat list.
    pub(crate) nesting: ShapeRef<'s>,
}

/// How BYTES are written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StringStyle {
    /// Text, if all elements are.
    Text,
    /// Base64, for the whole tensor.
    Base64,
    /// Text, or for an element that is no text an object with base64, as TensorFlow Serving does.
    Objects,
}

impl ListStyle<'_> {
    /// A flat list, with the endpoint's words for NaN and infinities.
    pub(crate) fn of(output: &OutputTensor<'_>) -> ListStyle<'static> {
        let strings = match output.data {
            TensorData::Strings(strings) if !strings.is_text() => StringStyle::Base64,
            _ => StringStyle::Text,
        };
        ListStyle { non_finite: output.non_finite, strings, nesting: ShapeRef::SCALAR }
    }
}

/// Appends the elements as JSON, separated by commas, without the outermost brackets. [`check`] must come before.
pub(crate) fn write_json_list(
    out: &mut Vec<u8>,
    output: &OutputTensor<'_>,
    style: ListStyle<'_>,
) -> Result<()> {
    let list = ListWriter { style, name: output.name };
    match output.data {
        TensorData::Uint8(data) if output.datatype == DataType::Bool => {
            list.write(out, data.iter().copied(), |out, _, value| {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
                Ok(())
            })
        }
        TensorData::Uint8(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint16(data) if output.datatype == DataType::Fp16 => {
            list.floats32(out, data.iter().map(|&bits| half::f16::from_bits(bits).to_f32()))
        }
        TensorData::Uint16(data) if output.datatype == DataType::Bf16 => {
            list.floats32(out, data.iter().map(|&bits| half::bf16::from_bits(bits).to_f32()))
        }
        TensorData::Uint16(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint32(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint64(data) => list.unsigned(out, data.iter().copied()),
        TensorData::Int8(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int16(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int32(data) => list.integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int64(data) => list.integers(out, data.iter().copied()),
        TensorData::Fp32(data) => list.floats32(out, data.iter().copied()),
        TensorData::Fp64(data) => list.floats64(out, data.iter().copied()),
        TensorData::Raw(data) => write_raw_json_list(out, data, output, style),
        TensorData::Strings(data) => list.strings(out, data),
    }
}

/// Appends little-endian elements of the output's datatype as JSON.
fn write_raw_json_list(
    out: &mut Vec<u8>,
    data: &[u8],
    output: &OutputTensor<'_>,
    style: ListStyle<'_>,
) -> Result<()> {
    let list = ListWriter { style, name: output.name };
    macro_rules! elements {
        ($t:ty) => {
            data.as_chunks().0.iter().map(|bytes| <$t>::from_le_bytes(*bytes))
        };
    }
    match output.datatype {
        DataType::Bool | DataType::Uint8 => {
            write_json_list(out, &OutputTensor { data: TensorData::Uint8(data), ..*output }, style)
        }
        DataType::Uint16 => list.integers(out, elements!(u16).map(i64::from)),
        DataType::Uint32 => list.integers(out, elements!(u32).map(i64::from)),
        DataType::Uint64 => list.unsigned(out, elements!(u64)),
        DataType::Int8 => list.integers(out, elements!(i8).map(i64::from)),
        DataType::Int16 => list.integers(out, elements!(i16).map(i64::from)),
        DataType::Int32 => list.integers(out, elements!(i32).map(i64::from)),
        DataType::Int64 => list.integers(out, elements!(i64)),
        DataType::Fp16 => list.floats32(out, elements!(u16).map(|bits| half::f16::from_bits(bits).to_f32())),
        DataType::Bf16 => list.floats32(out, elements!(u16).map(|bits| half::bf16::from_bits(bits).to_f32())),
        DataType::Fp32 => list.floats32(out, elements!(f32)),
        DataType::Fp64 => list.floats64(out, elements!(f64)),
        DataType::Bytes => Err(Error::new(
            Code::Internal,
            format!("output \"{}\": BYTES without their lengths have no JSON form", output.name),
        )),
    }
}

/// Writes the elements of a list.
struct ListWriter<'s> {
    style: ListStyle<'s>,
    name: &'s str,
}

impl ListWriter<'_> {
    /// Appends elements with commas between them, and with the brackets of nested lists.
    #[inline(always)]
    fn write<T>(
        &self,
        out: &mut Vec<u8>,
        elements: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, usize, T) -> Result<()>,
    ) -> Result<()> {
        if self.style.nesting.rank() > 1 {
            return self.write_nested(out, elements, write);
        }
        for (index, element) in elements.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(out, index, element)?;
        }
        Ok(())
    }

    fn write_nested<T>(
        &self,
        out: &mut Vec<u8>,
        elements: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, usize, T) -> Result<()>,
    ) -> Result<()> {
        if elements.len() == 0 {
            write_empty_lists(out, self.style.nesting);
            return Ok(());
        }
        // The number of elements in a list of each depth but the outermost: the caller writes the outermost brackets.
        let inner = self.style.nesting.inner();
        let mut spans: Vec<usize> = Vec::with_capacity(inner.len());
        let mut span = 1;
        for &dim in inner.iter().rev() {
            span *= dim.unsigned_abs() as usize;
            spans.push(span);
        }
        for (index, element) in elements.enumerate() {
            let opened = spans.iter().filter(|&&span| index.is_multiple_of(span)).count();
            if index > 0 {
                out.extend(std::iter::repeat_n(b']', opened));
                out.push(b',');
            }
            out.extend(std::iter::repeat_n(b'[', opened));
            write(out, index, element)?;
        }
        out.extend(std::iter::repeat_n(b']', spans.len()));
        Ok(())
    }

    fn integers(&self, out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = i64>) -> Result<()> {
        self.write(out, elements, |out, _, value| {
            write_integer(out, value < 0, value.unsigned_abs());
            Ok(())
        })
    }

    fn unsigned(&self, out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = u64>) -> Result<()> {
        self.write(out, elements, |out, _, value| {
            write_integer(out, false, value);
            Ok(())
        })
    }

    fn floats32(&self, out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = f32>) -> Result<()> {
        self.write(out, elements, |out, index, value| {
            if !value.is_finite() {
                return self.not_finite(out, index, value.into());
            }
            write_single(out, value);
            Ok(())
        })
    }

    fn floats64(&self, out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        let mut buffer = zmij::Buffer::new();
        self.write(out, elements, |out, index, value| {
            if !value.is_finite() {
                return self.not_finite(out, index, value);
            }
            out.extend_from_slice(buffer.format_finite(value).as_bytes());
            Ok(())
        })
    }

    #[cold]
    fn not_finite(&self, out: &mut Vec<u8>, index: usize, value: f64) -> Result<()> {
        let word = match value {
            value if value.is_nan() => "NaN",
            value if value > 0.0 => "Infinity",
            _ => "-Infinity",
        };
        match self.style.non_finite {
            NonFinite::Null => out.extend_from_slice(b"null"),
            NonFinite::String => write_json(word, out),
            NonFinite::Error => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!(
                        "output \"{}\" has {word} at element {index}, which JSON cannot carry; ask for \
                         binary_data, or set the endpoint's answers.non_finite",
                        self.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn strings(&self, out: &mut Vec<u8>, elements: StringTableView<'_>) -> Result<()> {
        self.write(out, elements.iter(), |out, _, element| {
            match (self.style.strings, std::str::from_utf8(element)) {
                (StringStyle::Text | StringStyle::Objects, Ok(text)) => write_json(text, out),
                (StringStyle::Objects, Err(_)) => {
                    out.extend_from_slice(b"{\"b64\":");
                    write_json_base64(element, out);
                    out.push(b'}');
                }
                (StringStyle::Base64 | StringStyle::Text, _) => write_json_base64(element, out),
            }
            Ok(())
        })
    }
}

/// Appends the inside of a list without elements: its lists down to the first dimension of 0.
fn write_empty_lists(out: &mut Vec<u8>, nesting: ShapeRef<'_>) {
    if nesting.rank() < 2 {
        return;
    }
    for index in 0..nesting.rows() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'[');
        write_empty_lists(out, nesting.row());
        out.push(b']');
    }
}
