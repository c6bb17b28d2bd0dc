//! A tensor: shape and bytes on our side, a value on the runtime's side, both reused while the shape repeats.
//!
//! Next: `buffer`, `element`.

use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape};
use ort_sys::OrtValue;

use crate::buffer::Buffer;
use crate::device::Driver;
use crate::element::{Element, from_onnx, to_onnx};
use crate::library::Library;
use crate::strings::Strings;

/// Bytes that hardly ever are an answer.
const MARK: [u8; 8] = [0xB7, 0x4C, 0xD9, 0x66, 0x9A, 0xE3, 0x35, 0xFB];

/// A value of the runtime, released when dropped.
pub(crate) struct Value {
    library: &'static Library,
    pub(crate) raw: NonNull<OrtValue>,
}

// SAFETY: a value is used by one owner at a time and the runtime does not tie it to a thread.
unsafe impl Send for Value {}

impl Value {
    pub(crate) fn new(library: &'static Library, raw: *mut OrtValue) -> Result<Self> {
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Code::BackendFailed, "the model left an output empty"))?;
        Ok(Self { library, raw })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: created by the runtime, released once.
        unsafe { (self.library.api.ReleaseValue)(self.raw.as_ptr()) }
    }
}

/// A tensor that we own: filled by the caller, read by the run (or the other way round for a preallocated output).
pub struct Tensor {
    library: &'static Library,
    datatype: DataType,
    shape: Shape,
    buffer: Buffer,
    value: Option<Value>,
    /// Somebody else's bytes under the value, in place of the buffer.
    adopted: Option<Bytes>,
}

impl Tensor {
    /// An empty tensor of a type; [`Tensor::reshape`] comes before anything else.
    pub fn new(library: &'static Library, datatype: DataType) -> Self {
        Self::in_memory_of(None, library, datatype)
    }

    /// As [`Tensor::new`], in memory that a device reads and writes by itself.
    pub(crate) fn in_memory_of(
        driver: Option<&Arc<dyn Driver>>,
        library: &'static Library,
        datatype: DataType,
    ) -> Self {
        Self {
            library,
            datatype,
            shape: Shape::SCALAR,
            buffer: Buffer::of(driver.cloned()),
            value: None,
            adopted: None,
        }
    }

    /// Gives the tensor a shape; nothing is done when it has that shape already. The contents are unspecified after.
    ///
    /// # Errors
    /// `invalid_argument` for a tensor that is too large, `overloaded` when there is no memory for it, `internal` when the
    /// runtime refuses.
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

    /// Keeps the first elements as a tensor of another shape, which has no more of them.
    ///
    /// # Errors
    /// `internal` for a shape that has more, or a tensor without a shape or of strings.
    pub fn narrow(&mut self, shape: &Shape) -> Result<()> {
        let fits = self.value.is_some() && self.adopted.is_none() && shape.count() <= self.shape.count();
        let size = self.datatype.size().filter(|_| fits);
        let size = size.ok_or_else(|| Error::new(Code::Internal, "a tensor that cannot be narrowed"))?;
        self.value = None;
        self.shape = *shape;
        self.value = Some(self.value_over(self.buffer.start().as_ptr(), shape.count() * size)?);
        Ok(())
    }

    /// Where the elements begin; it stays there until the tensor gets another shape.
    pub fn start(&self) -> NonNull<u8> {
        self.buffer.start()
    }

    /// Makes `bytes` the elements without copying them: for a tensor that is only read, an input. They are kept until the
    /// tensor gets another shape or forgets them.
    ///
    /// # Errors
    /// `internal` for bytes of another size than the shape's, or that [`Tensor::can_adopt`] does not take, or when the
    /// runtime refuses.
    pub fn adopt(&mut self, shape: &Shape, bytes: Bytes) -> Result<()> {
        let size = self.datatype.size().filter(|size| shape.count().checked_mul(*size) == Some(bytes.len()));
        if size.is_none() || !self.can_adopt(&bytes) {
            return Err(Error::new(Code::Internal, "bytes that are not the elements of the tensor"));
        }
        self.value = None;
        self.shape = *shape;
        // Inputs are never written to: neither by the runtime nor, while they are adopted, through this type.
        self.value = Some(self.value_over(bytes.as_ptr().cast_mut(), bytes.len())?);
        self.adopted = Some(bytes);
        Ok(())
    }

    /// Whether bytes are aligned for the elements, of a type of which every bit pattern is a value, and as good as our own.
    pub fn can_adopt(&self, bytes: &[u8]) -> bool {
        let aligned = |size: usize| (bytes.as_ptr() as usize).is_multiple_of(size);
        cfg!(target_endian = "little")
            // A device copies from its own host memory beside everything else, from other memory not.
            && !self.buffer.is_a_device_s()
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

    /// Bytes held for the elements, used or not.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
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

    /// What the tensor holds.
    ///
    /// # Errors
    /// `internal` before [`Tensor::reshape`].
    pub fn view(&self) -> Result<View<'_>> {
        let value =
            self.value.as_ref().ok_or_else(|| Error::new(Code::Internal, "a tensor without a shape"))?;
        if self.datatype == DataType::Bytes {
            return View::of(self.library, value);
        }
        Ok(View { datatype: self.datatype, shape: self.shape, data: Data::Bytes(self.bytes()) })
    }

    /// The elements' bytes; nothing for strings.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, length) = self.memory();
        // SAFETY: `length` bytes of the buffer, which is zeroed when it is made, or of the adopted ones.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// Marks the ends of the elements, so that [`Tensor::is_marked`] tells whether a run has written them.
    pub(crate) fn mark(&mut self) {
        let Some(bytes) = self.bytes_mut() else { return };
        match bytes.last_chunk_mut() {
            Some(last) => *last = MARK,
            None => bytes.copy_from_slice(&MARK[..bytes.len()]),
        }
        if bytes.len() >= 2 * MARK.len() {
            bytes[..MARK.len()].copy_from_slice(&MARK);
        }
    }

    /// Whether the ends are as [`Tensor::mark`] left them; nothing has no ends.
    pub(crate) fn is_marked(&self) -> bool {
        let bytes = self.bytes();
        match bytes.last_chunk::<8>() {
            Some(last) => *last == MARK && (bytes.len() < 2 * MARK.len() || bytes.starts_with(&MARK)),
            None => !bytes.is_empty() && *bytes == MARK[..bytes.len()],
        }
    }

    /// The strings that it holds, not copied; `None` for another type.
    pub fn strings(&self) -> Option<Strings<'_>> {
        Strings::of(self.library, self.value.as_ref()?)
    }

    /// Gives strings back to the runtime and adopted bytes to their owner; the buffer is kept.
    pub(crate) fn forget(&mut self) {
        if self.datatype == DataType::Bytes || self.adopted.is_some() {
            self.value = None;
            self.adopted = None;
        }
    }

    /// Where the elements are, and how many bytes they take; nothing for strings.
    pub(crate) fn memory(&self) -> (*const u8, usize) {
        match &self.adopted {
            Some(bytes) => (bytes.as_ptr(), bytes.len()),
            None => (self.buffer.start().as_ptr(), self.shape.count() * self.datatype.size().unwrap_or(0)),
        }
    }

    pub(crate) fn raw(&self) -> *mut OrtValue {
        self.value.as_ref().map_or(null_mut(), |value| value.raw.as_ptr())
    }

    fn over_buffer(&mut self, size: usize) -> Result<Value> {
        let bytes = self.shape.count() * size;
        self.buffer.reserve(bytes.max(1))?;
        self.value_over(self.buffer.start().as_ptr(), bytes)
    }

    /// A value over memory that holds the elements of the present shape.
    fn value_over(&self, start: *mut u8, bytes: usize) -> Result<Value> {
        let mut raw = null_mut();
        // SAFETY: the memory holds `bytes` and stays where it is while the value lives: whoever changes the buffer or the
        // adopted bytes drops the value first. The shape is `rank` numbers.
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
        Value::new(self.library, raw)
    }

    fn of_strings(&self) -> Result<Value> {
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
        Value::new(self.library, raw)
    }
}

/// A tensor's type, shape and contents, borrowed.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The element type.
    pub datatype: DataType,
    /// The shape.
    pub shape: Shape,
    /// The elements.
    pub data: Data<'a>,
}

/// A tensor's elements.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// Elements of a fixed size, little-endian, row-major, aligned for their type.
    Bytes(&'a [u8]),
    /// Strings: all bytes one after the other, and where each begins.
    Strings {
        /// The bytes of all elements.
        bytes: Vec<u8>,
        /// The offset of each element's first byte; it ends where the next begins.
        offsets: Vec<usize>,
    },
}

impl<'a> View<'a> {
    /// Rows `start..start + rows`: a tensor of so many, without a copy. `None` where there are not so many, or of strings.
    pub fn rows(&self, start: usize, rows: usize) -> Option<View<'a>> {
        let Data::Bytes(bytes) = self.data else { return None };
        let mut dims = [0; headgate_core::tensor::MAX_RANK];
        let rank = self.shape.dims().len();
        dims[..rank].copy_from_slice(self.shape.dims());
        *dims.first_mut().filter(|_| rank > 0)? = rows as i64;
        let each = bytes.len().checked_div(self.shape.rows()).unwrap_or(0);
        let end = start.checked_add(rows).filter(|&end| end <= self.shape.rows())?;
        let data = Data::Bytes(&bytes[start * each..end * each]);
        Some(View { datatype: self.datatype, shape: Shape::new(&dims[..rank]).ok()?, data })
    }

    pub(crate) fn of(library: &'static Library, value: &'a Value) -> Result<View<'a>> {
        let (datatype, shape) = type_and_shape(library, value)?;
        let Some(size) = datatype.size() else {
            return Ok(View { datatype, shape, data: strings(library, value, shape.count())? });
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
        Ok(View { datatype, shape, data: Data::Bytes(bytes) })
    }

    /// The elements as numbers, or `None` when `T` is not this tensor's type or the memory is not aligned for it.
    pub fn elements<T: Element>(&self) -> Option<&'a [T]> {
        let Data::Bytes(bytes) = self.data else { return None };
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

pub(crate) fn type_and_shape(library: &'static Library, value: &Value) -> Result<(DataType, Shape)> {
    let mut number = 0i32;
    let mut dims = null();
    let mut rank = 0usize;
    // SAFETY: the enum is an i32 in the C API, so an i32 takes any number that a newer library may answer; the shape's
    // memory belongs to the value.
    let shape = unsafe {
        let status = (library.api.GetTensorElementTypeAndShapeDataReference)(
            value.raw.as_ptr(),
            (&raw mut number).cast(),
            &mut dims,
            &mut rank,
        );
        library.api.check(status, Code::BackendFailed)?;
        if rank == 0 { Shape::SCALAR } else { Shape::new(std::slice::from_raw_parts(dims, rank))? }
    };
    let datatype = from_onnx(number).ok_or_else(|| {
        Error::new(Code::BackendFailed, format!("an output has ONNX type {number}, which the protocol lacks"))
    })?;
    Ok((datatype, shape))
}

fn strings<'a>(library: &'static Library, value: &'a Value, count: usize) -> Result<Data<'a>> {
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
        Ok(Data::Strings { bytes, offsets })
    }
}
