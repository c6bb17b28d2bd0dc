//! A tensor: a shape and bytes on our side, and a value on the runtime's side. Both are used again while the shape repeats.
//!
//! Next: `value`.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape};
use ort_sys::OrtValue;

use crate::buffer::AlignedBuffer;
use crate::device::driver::Driver;
use crate::element::{Element, to_onnx};
use crate::library::Library;
use crate::string_tensor::{StringTensor, held_bytes};
use crate::value::OwnedValue;
use crate::view::{Elements, TensorView};

/// Bytes that an output hardly ever has.
const SENTINEL: [u8; 8] = [0xB7, 0x4C, 0xD9, 0x66, 0x9A, 0xE3, 0x35, 0xFB];

/// A tensor that we own. The caller fills an input and the run reads it; the run fills a preallocated output.
pub struct Tensor {
    library: &'static Library,
    datatype: DataType,
    shape: Shape,
    buffer: AlignedBuffer,
    value: Option<OwnedValue>,
    /// Bytes of another owner, which the value uses in place of the buffer.
    adopted: Option<AdoptedBytes>,
}

/// Bytes of another owner.
struct AdoptedBytes {
    bytes: Bytes,
    /// The length of the buffer that they lie in and that they keep in memory.
    buffer_bytes: usize,
}

impl Tensor {
    /// An empty tensor of a type; [`Tensor::reshape`] comes before anything else.
    pub fn new(library: &'static Library, datatype: DataType) -> Self {
        Self::with_driver(None, library, datatype)
    }

    /// As [`Tensor::new`], in pinned memory, which a device reads and writes directly.
    pub(crate) fn with_driver(
        driver: Option<&Arc<dyn Driver>>,
        library: &'static Library,
        datatype: DataType,
    ) -> Self {
        Self {
            library,
            datatype,
            shape: Shape::SCALAR,
            buffer: AlignedBuffer::of(driver.cloned()),
            value: None,
            adopted: None,
        }
    }

    /// Gives the tensor a shape, unless it has that shape already. The contents are unspecified afterwards.
    ///
    /// # Errors
    /// `invalid_argument` for a tensor that is too large; `overloaded` without memory for it; `internal` if the runtime refuses.
    pub fn reshape(&mut self, shape: &Shape) -> Result<()> {
        if self.value.is_some() && self.shape == *shape && self.adopted.is_none() {
            return Ok(());
        }
        self.value = None;
        self.adopted = None;
        self.shape = *shape;
        self.value = Some(match self.datatype.size() {
            Some(size) => self.over_buffer(size)?,
            None => self.of_strings()?,
        });
        Ok(())
    }

    /// Gives the tensor a shape with as many elements or fewer. The first elements stay.
    ///
    /// # Errors
    /// `internal` for a shape with more elements, or a tensor without a shape or of strings.
    pub fn narrow(&mut self, shape: &Shape) -> Result<()> {
        let fits = self.value.is_some() && self.adopted.is_none() && shape.count() <= self.shape.count();
        let size = self.datatype.size().filter(|_| fits);
        let size = size.ok_or_else(|| Error::new(Code::Internal, "a tensor that cannot be narrowed"))?;
        self.value = None;
        self.shape = *shape;
        self.value = Some(self.value_over(self.buffer.start().as_ptr(), shape.count() * size)?);
        Ok(())
    }

    /// The first byte of the elements. It does not move until the tensor gets another shape.
    pub fn start(&self) -> NonNull<u8> {
        self.buffer.start()
    }

    /// Makes `bytes` the elements without copying them, for an input, which is only read. They are held until the tensor gets
    /// another shape, or `forget` releases them. They lie in a buffer of `buffer_bytes` bytes, which is held with them.
    ///
    /// # Errors
    /// `internal` for bytes of another size than the shape, for bytes that [`Tensor::can_adopt`] refuses, or if the runtime
    /// refuses.
    pub fn adopt(&mut self, shape: &Shape, bytes: Bytes, buffer_bytes: usize) -> Result<()> {
        let size = self.datatype.size().filter(|size| shape.count().checked_mul(*size) == Some(bytes.len()));
        if size.is_none() || !self.can_adopt(&bytes) {
            return Err(Error::new(Code::Internal, "bytes that are not the elements of the tensor"));
        }
        self.value = None;
        self.shape = *shape;
        // Inputs are never written: neither by the runtime, nor by this type while the bytes are adopted.
        self.value = Some(self.value_over(bytes.as_ptr().cast_mut(), bytes.len())?);
        self.adopted = Some(AdoptedBytes { bytes, buffer_bytes });
        Ok(())
    }

    /// Whether these bytes may be the elements: they are aligned, every bit pattern is a value, and a device needs no copy.
    pub fn can_adopt(&self, bytes: &[u8]) -> bool {
        let aligned = |size: usize| (bytes.as_ptr() as usize).is_multiple_of(size);
        cfg!(target_endian = "little")
            // A device copies from pinned memory while it computes, but not from other memory.
            && !self.buffer.is_pinned()
            && self.datatype != DataType::Bool
            && self.datatype.size().is_some_and(aligned)
    }

    /// The element type.
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes allocated for the elements, used or not.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Copies adopted bytes into the tensor's own buffer, and releases them.
    ///
    /// # Errors
    /// As [`Tensor::reshape`]. Then the tensor has no contents.
    pub(crate) fn copy_adopted(&mut self) -> Result<()> {
        if self.adopted.is_none() {
            return Ok(());
        }
        // The value reads the adopted bytes, so that it must go first.
        self.value = None;
        let (adopted, shape) = (self.adopted.take(), self.shape);
        self.reshape(&shape)?;
        if let (Some(adopted), Some(into)) = (adopted, self.bytes_mut()) {
            into.copy_from_slice(&adopted.bytes);
        }
        Ok(())
    }

    /// The number of adopted bytes.
    pub(crate) fn adopted_bytes(&self) -> usize {
        self.adopted.as_ref().map_or(0, |adopted| adopted.bytes.len())
    }

    /// The bytes of the buffer that adopted bytes lie in.
    pub(crate) fn adopted_from(&self) -> usize {
        self.adopted.as_ref().map_or(0, |adopted| adopted.buffer_bytes)
    }

    /// Bytes that the tensor keeps in memory by itself: its buffer and strings. Adopted bytes are not among them, because several tensors
    /// may keep the same buffer.
    pub(crate) fn held_bytes(&self) -> usize {
        let strings = self.value.as_ref().filter(|_| self.datatype == DataType::Bytes);
        let strings = strings.map_or(0, |value| held_bytes(self.library, value));
        self.buffer.capacity() + strings
    }

    /// Makes the elements those of `view`, with its shape.
    ///
    /// # Errors
    /// As [`Tensor::reshape`]; `internal` for elements of another type.
    pub fn copy_from(&mut self, view: &TensorView<'_>) -> Result<()> {
        if view.datatype != self.datatype {
            return Err(Error::new(Code::Internal, "elements of another type"));
        }
        self.reshape(&view.shape.to_shape())?;
        let wrong_count = || Error::new(Code::Internal, "another number of elements than the shape has");
        match &view.data {
            Elements::Bytes(bytes) => {
                let into = self.bytes_mut().filter(|into| into.len() == bytes.len());
                into.ok_or_else(wrong_count)?.copy_from_slice(bytes);
            }
            Elements::Strings { bytes, offsets } => {
                if offsets.len() != view.shape.count() {
                    return Err(wrong_count());
                }
                let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
                for (index, (&start, end)) in offsets.iter().zip(ends).enumerate() {
                    self.set_string(index, &bytes[start..end])?;
                }
            }
        }
        Ok(())
    }

    /// The elements, or `None` when `T` is not this tensor's type.
    pub fn elements_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        if !T::fits(self.datatype) || self.value.is_none() || self.adopted.is_some() {
            return None;
        }
        // SAFETY: the buffer has room for `count` elements of this size, is aligned for all of them, and every bit pattern
        // is a value of T; `&mut self` makes the access unique.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.buffer.start().cast::<T>().as_ptr(), self.shape.count())
        })
    }

    /// The elements as bytes in memory order; `None` for strings.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let size = self.datatype.size().filter(|_| self.adopted.is_none())?;
        self.value.as_ref()?;
        // SAFETY: as in `elements_mut`, for bytes.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.buffer.start().as_ptr(), self.shape.count() * size)
        })
    }

    /// Sets one element of a tensor of strings; the bytes may be anything.
    ///
    /// # Errors
    /// `internal` for an index outside the tensor or a tensor of another type.
    pub fn set_string(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let value =
            self.value.as_ref().filter(|_| self.datatype == DataType::Bytes && index < self.shape.count());
        let value = value.ok_or_else(|| Error::new(Code::Internal, format!("no string element {index}")))?;
        let mut start = null_mut();
        // SAFETY: a string tensor with at least index + 1 elements; the runtime returns room for exactly `len` bytes.
        unsafe {
            let status = (self.library.api.GetResizedStringTensorElementBuffer)(
                value.raw.as_ptr(),
                index,
                bytes.len(),
                &mut start,
            );
            self.library.api.check(status, Code::Internal)?;
            if !bytes.is_empty() {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>(), bytes.len());
            }
        }
        Ok(())
    }

    /// The contents of the tensor.
    ///
    /// # Errors
    /// `internal` before [`Tensor::reshape`].
    pub fn view(&self) -> Result<TensorView<'_>> {
        let value =
            self.value.as_ref().ok_or_else(|| Error::new(Code::Internal, "a tensor without a shape"))?;
        if self.datatype == DataType::Bytes {
            return TensorView::of(self.library, value);
        }
        let data = Elements::Bytes(self.bytes());
        Ok(TensorView { datatype: self.datatype, shape: self.shape.view(), data })
    }

    /// The bytes of the elements. Empty for strings.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, length) = self.memory();
        // SAFETY: `length` bytes of the buffer, which is zeroed when it is made, or of the adopted ones.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// Writes the sentinel to both ends of the elements, so that [`Tensor::has_sentinel`] shows whether a run has written them.
    pub(crate) fn write_sentinel(&mut self) {
        let Some(bytes) = self.bytes_mut() else { return };
        match bytes.last_chunk_mut() {
            Some(last) => *last = SENTINEL,
            None => bytes.copy_from_slice(&SENTINEL[..bytes.len()]),
        }
        if bytes.len() >= 2 * SENTINEL.len() {
            bytes[..SENTINEL.len()].copy_from_slice(&SENTINEL);
        }
    }

    /// Whether both ends still have the sentinel. False for a tensor without elements.
    pub(crate) fn has_sentinel(&self) -> bool {
        let bytes = self.bytes();
        match bytes.last_chunk::<8>() {
            Some(last) => {
                *last == SENTINEL && (bytes.len() < 2 * SENTINEL.len() || bytes.starts_with(&SENTINEL))
            }
            None => !bytes.is_empty() && *bytes == SENTINEL[..bytes.len()],
        }
    }

    /// The strings of the tensor, not copied. `None` for another type.
    pub fn strings(&self) -> Option<StringTensor<'_>> {
        StringTensor::of(self.library, self.value.as_ref()?)
    }

    /// Releases strings and adopted bytes. The buffer stays.
    pub(crate) fn forget(&mut self) {
        if self.datatype == DataType::Bytes || self.adopted.is_some() {
            self.value = None;
            self.adopted = None;
        }
    }

    /// The first byte of the elements and their length in bytes, which is 0 for strings.
    pub(crate) fn memory(&self) -> (*const u8, usize) {
        match &self.adopted {
            Some(AdoptedBytes { bytes, .. }) => (bytes.as_ptr(), bytes.len()),
            None => (self.buffer.start().as_ptr(), self.shape.count() * self.datatype.size().unwrap_or(0)),
        }
    }

    pub(crate) fn raw(&self) -> *mut OrtValue {
        self.value.as_ref().map_or(null_mut(), |value| value.raw.as_ptr())
    }

    fn over_buffer(&mut self, size: usize) -> Result<OwnedValue> {
        let bytes = self.shape.count() * size;
        self.buffer.reserve(bytes.max(1))?;
        self.value_over(self.buffer.start().as_ptr(), bytes)
    }

    /// A value over memory that holds the elements of the present shape.
    fn value_over(&self, start: *mut u8, bytes: usize) -> Result<OwnedValue> {
        let mut raw = null_mut();
        // SAFETY: the memory holds `bytes` and does not move while the value lives: a change of the buffer or of the adopted
        // bytes drops the value first. The shape is `rank` numbers.
        let status = unsafe {
            (self.library.api.CreateTensorWithDataAsOrtValue)(
                self.library.cpu.as_ptr(),
                start.cast(),
                bytes,
                self.shape.dims().as_ptr(),
                self.shape.dims().len(),
                to_onnx(self.datatype),
                &mut raw,
            )
        };
        self.library.api.check(status, Code::Internal)?;
        OwnedValue::new(self.library, raw)
    }

    fn of_strings(&self) -> Result<OwnedValue> {
        let mut allocator = null_mut();
        let mut raw = null_mut();
        // SAFETY: the default allocator is static; the out-pointers are valid.
        unsafe {
            let status = (self.library.api.GetAllocatorWithDefaultOptions)(&mut allocator);
            self.library.api.check(status, Code::Internal)?;
            let status = (self.library.api.CreateTensorAsOrtValue)(
                allocator,
                self.shape.dims().as_ptr(),
                self.shape.dims().len(),
                to_onnx(DataType::Bytes),
                &mut raw,
            );
            self.library.api.check(status, Code::Internal)?;
        }
        OwnedValue::new(self.library, raw)
    }
}
