//! The elements of outputs, as JSON and as binary data.
//!
//! Next: `metadata`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::DataType;

use super::{OutputTensor, TensorData};
use crate::strings::{Strings, write_json};

/// The most bytes that an element of fixed size takes in JSON, its comma included: a double such as
/// -2.2250738585072014e-308.
const LONGEST: usize = 25;

/// Makes sure that data, datatype and shape of an output agree.
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

/// Appends the elements as JSON, separated by commas, without the brackets. The output was checked.
pub(super) fn write_json_list(out: &mut Vec<u8>, output: &OutputTensor<'_>) -> Result<()> {
    let name = output.name;
    match output.data {
        TensorData::Uint8(data) if output.datatype == DataType::Bool => {
            list(out, data.iter().copied(), |out, _, value| {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
                Ok(())
            })
        }
        TensorData::Uint8(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint16(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint32(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Uint64(data) => list(out, data.iter().copied(), |out, _, value| {
            write_integer(out, false, value);
            Ok(())
        }),
        TensorData::Int8(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int16(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int32(data) => integers(out, data.iter().map(|&value| value.into())),
        TensorData::Int64(data) => integers(out, data.iter().copied()),
        TensorData::Fp32(data) => singles(out, data.iter().copied(), name),
        TensorData::Fp64(data) => doubles(out, data.iter().copied(), name),
        TensorData::Raw(data) => raw(out, data, output),
        TensorData::Strings(data) => strings(out, data, name),
    }
}

/// Appends little-endian elements of the output's datatype as JSON.
fn raw(out: &mut Vec<u8>, data: &[u8], output: &OutputTensor<'_>) -> Result<()> {
    macro_rules! elements {
        ($t:ty) => {
            data.as_chunks().0.iter().map(|bytes| <$t>::from_le_bytes(*bytes))
        };
    }
    match output.datatype {
        DataType::Bool | DataType::Uint8 => {
            write_json_list(out, &OutputTensor { data: TensorData::Uint8(data), ..*output })
        }
        DataType::Uint16 => integers(out, elements!(u16).map(i64::from)),
        DataType::Uint32 => integers(out, elements!(u32).map(i64::from)),
        DataType::Uint64 => list(out, elements!(u64), |out, _, value| {
            write_integer(out, false, value);
            Ok(())
        }),
        DataType::Int8 => integers(out, elements!(i8).map(i64::from)),
        DataType::Int16 => integers(out, elements!(i16).map(i64::from)),
        DataType::Int32 => integers(out, elements!(i32).map(i64::from)),
        DataType::Int64 => integers(out, elements!(i64)),
        DataType::Fp32 => singles(out, elements!(f32), output.name),
        DataType::Fp64 => doubles(out, elements!(f64), output.name),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => Err(Error::new(
            Code::Internal,
            format!("output \"{}\": {} as bytes has no JSON form", output.name, output.datatype),
        )),
    }
}

/// Appends elements with commas between them.
fn list<T>(
    out: &mut Vec<u8>,
    elements: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, usize, T) -> Result<()>,
) -> Result<()> {
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, index, element)?;
    }
    Ok(())
}

fn integers(out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = i64>) -> Result<()> {
    list(out, elements, |out, _, value| {
        write_integer(out, value < 0, value.unsigned_abs());
        Ok(())
    })
}

fn singles(out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = f32>, name: &str) -> Result<()> {
    let mut buffer = zmij::Buffer::new();
    list(out, elements, |out, index, value| {
        if !value.is_finite() {
            return Err(not_finite(name, index, value.into()));
        }
        out.extend_from_slice(buffer.format_finite(value).as_bytes());
        Ok(())
    })
}

fn doubles(out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = f64>, name: &str) -> Result<()> {
    let mut buffer = zmij::Buffer::new();
    list(out, elements, |out, index, value| {
        if !value.is_finite() {
            return Err(not_finite(name, index, value));
        }
        out.extend_from_slice(buffer.format_finite(value).as_bytes());
        Ok(())
    })
}

#[cold]
fn not_finite(name: &str, index: usize, value: f64) -> Error {
    let what = match value {
        value if value.is_nan() => "a NaN",
        value if value > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    Error::new(
        Code::BackendFailed,
        format!(
            "output \"{name}\" has {what} at element {index}, which JSON cannot carry; ask for binary_data"
        ),
    )
}

fn strings(out: &mut Vec<u8>, elements: Strings<'_>, name: &str) -> Result<()> {
    list(out, elements.iter(), |out, index, element| match std::str::from_utf8(element) {
        Ok(text) => {
            write_json(text, out);
            Ok(())
        }
        Err(_) => Err(Error::new(
            Code::BackendFailed,
            format!(
                "output \"{name}\" has bytes that are not UTF-8 at element {index}, which JSON cannot \
                 carry; ask for binary_data"
            ),
        )),
    })
}

/// The decimal digits of 0 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends a sign and a magnitude in decimal.
pub(crate) fn write_integer(out: &mut Vec<u8>, negative: bool, magnitude: u64) {
    let mut digits = [0u8; LONGEST];
    let mut at = LONGEST;
    let mut left = magnitude;
    while left >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(left % 100) as usize]);
        left /= 100;
    }
    if left >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[left as usize]);
    } else {
        at -= 1;
        digits[at] = b'0' + left as u8;
    }
    if negative {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_the_standard_library_writes_them() {
        let mut value = 1u64;
        for step in 0..200u64 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 64);
            for value in [value, u64::MAX, 0, 9, 10, 99, 100, 101, 999, 1000] {
                let mut out = Vec::new();
                write_integer(&mut out, false, value);
                assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
            }
        }
        let mut out = Vec::new();
        write_integer(&mut out, true, i64::MIN.unsigned_abs());
        assert_eq!(out, i64::MIN.to_string().into_bytes());
    }
}
