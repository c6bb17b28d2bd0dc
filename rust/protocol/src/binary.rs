//! The binary tensor extension: splitting a body, giving each input its bytes, and turning bytes into typed elements.
//!
//! Binary data is little-endian and row-major, without padding; a BOOL is one byte. BYTES have a form of their own
//! (`strings`).
//! Next: `response`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, TensorSpec};

use crate::typed_slice::TypedSliceMut;

/// The header with the length of the JSON in front of binary data; its name in lower case.
pub const LENGTH_HEADER: &str = "inference-header-content-length";

/// The two parts of a body: its JSON and the binary data behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyParts<'a> {
    /// The JSON.
    pub json: &'a [u8],
    /// The binary data; `None` without the header.
    pub tail: Option<&'a [u8]>,
}

/// Splits a body by the value of [`LENGTH_HEADER`], if the request has one.
///
/// # Errors
/// `invalid_argument` for a value that is not a length within the body.
pub fn split<'a>(body: &'a [u8], header: Option<&[u8]>) -> Result<BodyParts<'a>> {
    let Some(value) = header else { return Ok(BodyParts { json: body, tail: None }) };
    let digits = value.trim_ascii();
    let length = std::str::from_utf8(digits)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<usize>().ok());
    match length {
        Some(length) if length <= body.len() => {
            let (json, tail) = body.split_at(length);
            Ok(BodyParts { json, tail: Some(tail) })
        }
        _ => Err(Error::invalid(format!(
            "Inference-Header-Content-Length is \"{}\"; it must be a whole number from 0 to {}, the \
             length of the body",
            String::from_utf8_lossy(&digits[..digits.len().min(40)]),
            body.len()
        ))),
    }
}

/// Reads the binary data of a body, one blob for each input, in the order of the inputs.
#[derive(Debug)]
pub(crate) struct BlobReader<'a> {
    rest: &'a [u8],
    has_header: bool,
}

impl<'a> BlobReader<'a> {
    pub(crate) fn new(body: BodyParts<'a>) -> BlobReader<'a> {
        BlobReader { rest: body.tail.unwrap_or_default(), has_header: body.tail.is_some() }
    }

    /// Whether the request has the header with the length of the JSON.
    pub(crate) fn has_header(&self) -> bool {
        self.has_header
    }

    /// The next `size` bytes.
    pub(crate) fn next(&mut self, size: u64, input_name: &str) -> Result<&'a [u8]> {
        if !self.has_header && size > 0 {
            return Err(Error::invalid(format!(
                "input \"{input_name}\" has \"binary_data_size\", but the request has no \
                 Inference-Header-Content-Length, which says \
                 where the JSON ends"
            )));
        }
        let parts = usize::try_from(size).ok().and_then(|size| self.rest.split_at_checked(size));
        let Some((blob, rest)) = parts else {
            return Err(Error::invalid(format!(
                "input \"{input_name}\": binary_data_size is {size}, but only {} bytes of binary data \
                 are left in the body",
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(blob)
    }

    /// Refuses bytes that no input has taken.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} bytes of binary data are left in the body after the last input; each binary_data_size \
             must count its own bytes",
            self.rest.len()
        )))
    }
}

/// Checks a declared size against datatype and shape.
pub(crate) fn check_size(size: u64, datatype: DataType, shape: &Shape, input_name: &str) -> Result<()> {
    let count = shape.count() as u64;
    match datatype.size() {
        Some(each) if size == count * each as u64 => Ok(()),
        Some(each) => Err(Error::invalid(format!(
            "input \"{input_name}\": binary_data_size is {size}, but {datatype} of shape {shape:?} has \
             {} bytes",
            count * each as u64
        ))),
        None if size >= 4 * count => Ok(()),
        None => Err(Error::invalid(format!(
            "input \"{input_name}\": binary_data_size is {size}, but BYTES of shape {shape:?} needs 4 \
             bytes of length for each of {count} \
             elements"
        ))),
    }
}

/// The shape of the only input of a request without JSON, whose body is the bytes of that input.
///
/// One open dimension follows from the size of the body. If two are open, the first is 1. A BYTES input is one element.
///
/// # Errors
/// `invalid_argument` for a model with several inputs, with more open dimensions, or whose sizes do not fit.
pub fn raw_shape(blob: &[u8], specs: &[TensorSpec]) -> Result<Shape> {
    let [spec] = specs else {
        return Err(Error::invalid(format!(
            "a request without JSON (Inference-Header-Content-Length: 0) needs a model with one input; this one has {}",
            specs.len()
        )));
    };
    let refused = |reason: String| Error::invalid(format!("input \"{}\": {reason}", spec.name));
    let mut dims: Vec<i64> = spec.shape.clone();
    let mut open: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] < 0).collect();
    let each = spec.datatype.size();
    if (open.len() == 2 || each.is_none()) && open.first() == Some(&0) {
        dims[0] = 1;
        open.remove(0);
    }
    let Some(each) = each else {
        open.iter().for_each(|&axis| dims[axis] = 1);
        let shape = Shape::new(&dims)?;
        if shape.count() != 1 {
            return Err(refused(format!(
                "shape {:?} has more than one element, and a request without JSON is one",
                spec.shape
            )));
        }
        return Ok(shape);
    };
    let known: i64 = dims.iter().filter(|dim| **dim >= 0).product();
    let (count, rest) = (blob.len() / each, blob.len() % each);
    match open[..] {
        [] if rest == 0 && count as i64 == known => {}
        [] => {
            return Err(refused(format!(
                "shape {:?} is {} bytes, and the body is {}",
                spec.shape,
                known.unsigned_abs() as usize * each,
                blob.len()
            )));
        }
        [axis] if known > 0 && rest == 0 && count as i64 % known == 0 => dims[axis] = count as i64 / known,
        [_] => {
            return Err(refused(format!(
                "{} bytes are no whole number of rows of {} bytes",
                blob.len(),
                known.unsigned_abs() as usize * each
            )));
        }
        _ => {
            return Err(refused(format!(
                "shape {:?} leaves too much open for a request without JSON",
                spec.shape
            )));
        }
    }
    Shape::new(&dims)
}

/// Checks the size of raw contents against datatype and shape.
///
/// # Errors
/// `invalid_argument` that names `input_name` and the size that would be right.
pub(crate) fn check_raw(size: usize, datatype: DataType, shape: &Shape, input_name: &str) -> Result<()> {
    check_size(size as u64, datatype, shape, input_name).map_err(|error| {
        Error::invalid(error.message.replace("binary_data_size is", "the size of its raw_input_contents is"))
    })
}

/// Checks that a blob may be used as the elements of a tensor without a copy: its size, and that every BOOL is 0 or 1.
///
/// [`copy_into`] checks the same.
///
/// # Errors
/// `invalid_argument` that names `input_name`.
pub fn check_blob(blob: &[u8], datatype: DataType, shape: &Shape, input_name: &str) -> Result<()> {
    check_size(blob.len() as u64, datatype, shape, input_name)?;
    if datatype != DataType::Bool || blob.iter().fold(0, |all, &byte| all | byte) <= 1 {
        return Ok(());
    }
    let index = blob.iter().position(|&byte| byte > 1).unwrap_or(0);
    Err(Error::invalid(format!(
        "input \"{input_name}\": element {index} is the byte {}, a BOOL is 0 or 1",
        blob.get(index).copied().unwrap_or(0)
    )))
}

/// Checks that a buffer has the datatype and the length of a tensor.
pub(crate) fn check_buffer(
    out: &TypedSliceMut<'_>,
    datatype: DataType,
    shape: &Shape,
    input_name: &str,
) -> Result<()> {
    if out.datatype() == datatype && out.len() == shape.count() {
        return Ok(());
    }
    Err(Error::new(
        Code::Internal,
        format!(
            "input \"{input_name}\": {datatype} of shape {shape:?} was given a buffer of {} {} elements",
            out.len(),
            out.datatype()
        ),
    ))
}

/// Copies a blob into a typed buffer of `shape.count()` elements.
///
/// # Errors
/// `invalid_argument` that names `input_name` for a wrong size or a BOOL that is neither 0 nor 1; `internal` if `out` has
/// another length than `shape`.
pub fn copy_into(blob: &[u8], shape: &Shape, out: TypedSliceMut<'_>, input_name: &str) -> Result<()> {
    let datatype = out.datatype();
    check_buffer(&out, datatype, shape, input_name)?;
    check_blob(blob, datatype, shape, input_name)?;
    macro_rules! copy {
        ($out:ident, $from:expr) => {
            for (slot, bytes) in $out.iter_mut().zip(blob.as_chunks().0) {
                *slot = $from(*bytes);
            }
        };
    }
    match out {
        TypedSliceMut::Bool(out) | TypedSliceMut::Uint8(out) => out.copy_from_slice(blob),
        TypedSliceMut::Int8(out) => copy!(out, i8::from_le_bytes),
        TypedSliceMut::Uint16(out) | TypedSliceMut::Fp16(out) | TypedSliceMut::Bf16(out) => {
            copy!(out, u16::from_le_bytes)
        }
        TypedSliceMut::Int16(out) => copy!(out, i16::from_le_bytes),
        TypedSliceMut::Uint32(out) => copy!(out, u32::from_le_bytes),
        TypedSliceMut::Int32(out) => copy!(out, i32::from_le_bytes),
        TypedSliceMut::Fp32(out) => copy!(out, f32::from_le_bytes),
        TypedSliceMut::Uint64(out) => copy!(out, u64::from_le_bytes),
        TypedSliceMut::Int64(out) => copy!(out, i64::from_le_bytes),
        TypedSliceMut::Fp64(out) => copy!(out, f64::from_le_bytes),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_split_where_the_header_says() {
        assert_eq!(split(b"{}ab", Some(b"2")).unwrap(), BodyParts { json: b"{}", tail: Some(b"ab") });
        assert_eq!(split(b"{}", Some(b" 2 ")).unwrap(), BodyParts { json: b"{}", tail: Some(b"") });
        assert_eq!(split(b"{}", None).unwrap(), BodyParts { json: b"{}", tail: None });
        for value in ["3", "-1", "+1", "abc", "", "1.0", "99999999999999999999999999", "0x2", "1 2"] {
            let error = split(b"{}", Some(value.as_bytes())).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{value}");
            assert!(error.message.contains("from 0 to 2"), "{error}");
        }
        assert_eq!(split(b"{}", Some(b"0")).unwrap(), BodyParts { json: b"", tail: Some(b"{}") });
    }

    #[test]
    fn blobs_become_elements() {
        let shape = Shape::new(&[2]).unwrap();
        let mut out = [0i16; 2];
        copy_into(b"\x01\x00\xff\xff", &shape, TypedSliceMut::Int16(&mut out), "X").unwrap();
        assert_eq!(out, [1, -1]);
        let mut out = [9u8; 2];
        copy_into(b"\x01\x00", &shape, TypedSliceMut::Bool(&mut out), "X").unwrap();
        assert_eq!(out, [1, 0]);
        let error = copy_into(b"\x01\x02", &shape, TypedSliceMut::Bool(&mut out), "X").unwrap_err();
        assert!(error.message.contains("element 1 is the byte 2"), "{error}");
        let error = copy_into(b"\x01", &shape, TypedSliceMut::Bool(&mut out), "X").unwrap_err();
        assert!(error.message.contains("has 2 bytes"), "{error}");
    }
}
