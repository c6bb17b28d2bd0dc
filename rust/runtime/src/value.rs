//! A value of the runtime, with its type and shape. It is released when dropped.
//!
//! Next: `view`.

use std::ptr::{NonNull, null};

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, ShapeRef};
use ort_sys::OrtValue;

use crate::element::from_onnx;
use crate::library::Library;

/// A value of the runtime, released when dropped.
pub(crate) struct OwnedValue {
    library: &'static Library,
    pub(crate) raw: NonNull<OrtValue>,
}

// SAFETY: a value is used by one owner at a time and the runtime does not tie it to a thread.
unsafe impl Send for OwnedValue {}

impl OwnedValue {
    pub(crate) fn new(library: &'static Library, raw: *mut OrtValue) -> Result<Self> {
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Code::BackendFailed, "the model left an output empty"))?;
        Ok(Self { library, raw })
    }
}

impl Drop for OwnedValue {
    fn drop(&mut self) {
        // SAFETY: created by the runtime, released once.
        unsafe { (self.library.api.ReleaseValue)(self.raw.as_ptr()) }
    }
}

/// The element type and the shape of a tensor. The shape stands in the value.
pub(crate) fn type_and_shape<'a>(
    library: &'static Library,
    value: &'a OwnedValue,
) -> Result<(DataType, ShapeRef<'a>)> {
    let mut number = 0i32;
    let mut dims = null();
    let mut rank = 0usize;
    // SAFETY: the enum is an i32 in the C API, so that an i32 takes any number of a newer library; the shape's memory belongs to
    // the value.
    let shape = unsafe {
        let status = (library.api.GetTensorElementTypeAndShapeDataReference)(
            value.raw.as_ptr(),
            (&raw mut number).cast(),
            &mut dims,
            &mut rank,
        );
        library.api.check(status, Code::BackendFailed)?;
        if rank == 0 { ShapeRef::SCALAR } else { ShapeRef::new(std::slice::from_raw_parts(dims, rank))? }
    };
    let datatype = from_onnx(number).ok_or_else(|| {
        Error::new(Code::BackendFailed, format!("an output has ONNX type {number}, which the protocol lacks"))
    })?;
    Ok((datatype, shape))
}
