//! A tensor's contents, borrowed.
//!
//! Next: `string_tensor`.

use std::ptr::null_mut;

use headgate_core::error::{Code, Result};
use headgate_core::tensor::{DataType, ShapeRef};

use crate::element::Element;
use crate::library::Library;
use crate::value::{OwnedValue, type_and_shape};

/// A tensor's type, shape and contents, borrowed.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The element type.
    pub datatype: DataType,
    /// The shape.
    pub shape: ShapeRef<'a>,
    /// The elements.
    pub data: Elements<'a>,
}

/// A tensor's elements.
#[derive(Clone, Debug)]
pub enum Elements<'a> {
    /// Elements of a fixed size, little-endian, row-major, aligned for their type.
    Bytes(&'a [u8]),
    /// Strings: all bytes one after the other, and the offset of each.
    Strings {
        /// The bytes of all elements.
        bytes: Vec<u8>,
        /// The offset of each element's first byte. An element ends at the offset of the next.
        offsets: Vec<usize>,
    },
}

impl<'a> TensorView<'a> {
    /// Rows `start..start + rows` as a tensor, not copied. `None` if there are fewer rows, or for strings.
    pub fn rows(&self, start: usize, rows: usize) -> Option<TensorView<'a>> {
        let Elements::Bytes(bytes) = self.data else { return None };
        let shape = self.shape.with_rows(rows)?;
        let each = bytes.len().checked_div(self.shape.rows()).unwrap_or(0);
        let end = start.checked_add(rows).filter(|&end| end <= self.shape.rows())?;
        let data = Elements::Bytes(&bytes[start * each..end * each]);
        Some(TensorView { datatype: self.datatype, shape, data })
    }

    pub(crate) fn of(library: &'static Library, value: &'a OwnedValue) -> Result<TensorView<'a>> {
        let (datatype, shape) = type_and_shape(library, value)?;
        let Some(size) = datatype.size() else {
            return Ok(TensorView { datatype, shape, data: strings(library, value, shape.count())? });
        };
        let mut start = null_mut();
        // SAFETY: a live tensor value and a valid out-pointer.
        let status = unsafe { (library.api.GetTensorMutableData)(value.raw.as_ptr(), &mut start) };
        library.api.check(status, Code::BackendFailed)?;
        let length = shape.count() * size;
        let bytes = if length == 0 || start.is_null() {
            &[]
        } else {
            // SAFETY: the runtime holds `count` elements there for as long as the value lives.
            unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }
        };
        Ok(TensorView { datatype, shape, data: Elements::Bytes(bytes) })
    }

    /// The elements as numbers. `None` if `T` is not this tensor's type, or the memory is not aligned for it.
    pub fn elements<T: Element>(&self) -> Option<&'a [T]> {
        let Elements::Bytes(bytes) = self.data else { return None };
        if !T::fits(self.datatype) {
            return None;
        }
        if bytes.is_empty() {
            return Some(&[]);
        }
        if !bytes.as_ptr().cast::<T>().is_aligned() {
            return None;
        }
        // SAFETY: aligned, long enough, and every bit pattern is a value of T.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len() / size_of::<T>()) })
    }
}

fn strings<'a>(library: &'static Library, value: &'a OwnedValue, count: usize) -> Result<Elements<'a>> {
    let mut length = 0usize;
    // SAFETY: a live string tensor; the two arrays below have the lengths that are passed.
    unsafe {
        let status = (library.api.GetStringTensorDataLength)(value.raw.as_ptr(), &mut length);
        library.api.check(status, Code::BackendFailed)?;
        let mut bytes = vec![0u8; length];
        let mut offsets = vec![0usize; count];
        if count > 0 {
            let status = (library.api.GetStringTensorContent)(
                value.raw.as_ptr(),
                bytes.as_mut_ptr().cast(),
                length,
                offsets.as_mut_ptr(),
                count,
            );
            library.api.check(status, Code::BackendFailed)?;
        }
        Ok(Elements::Strings { bytes, offsets })
    }
}
