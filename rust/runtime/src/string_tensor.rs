//! The lengths of a string tensor's elements, read one at a time, so that reading a few of many copies nothing.
//!
//! Next: `buffer`.

use headgate_core::tensor::{DataType, ShapeRef};

use crate::library::Library;
use crate::value::{OwnedValue, type_and_shape};

/// A tensor of strings, borrowed.
pub struct StringTensor<'a> {
    library: &'static Library,
    value: &'a OwnedValue,
    /// The shape.
    pub shape: ShapeRef<'a>,
}

impl std::fmt::Debug for StringTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Strings").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<'a> StringTensor<'a> {
    /// `None` for a tensor of another type.
    pub(crate) fn of(library: &'static Library, value: &'a OwnedValue) -> Option<StringTensor<'a>> {
        let (datatype, shape) = type_and_shape(library, value).ok()?;
        (datatype == DataType::Bytes).then_some(StringTensor { library, value, shape })
    }

    /// Whether its elements and their offsets have more than this many bytes together.
    pub fn is_longer_than(&self, bytes: usize) -> bool {
        let count = self.shape.count();
        let Some(mut left) = bytes.checked_sub(count.saturating_mul(size_of::<usize>())) else { return true };
        (0..count).any(|element| match left.checked_sub(self.length(element)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }

    /// The number of bytes of an element. 0 behind the last element.
    pub fn length(&self, element: usize) -> usize {
        if element >= self.shape.count() {
            return 0;
        }
        let mut length = 0;
        // SAFETY: a live string tensor with more than `element` elements, and a valid out-pointer.
        let status = unsafe {
            (self.library.api.GetStringTensorElementLength)(self.value.raw.as_ptr(), element, &mut length)
        };
        let checked = self.library.api.check(status, headgate_core::error::Code::Internal);
        checked.map_or(0, |()| length)
    }
}

/// What a string takes in the runtime beside its bytes: the string itself, which holds short ones, and what the allocator adds.
const STRING_OVERHEAD: usize = 48;
/// The strings whose lengths are read; the others count as long as these are on average.
const MEASURED_STRINGS: usize = 256;

/// The bytes that a tensor of the runtime takes; of strings, about that many.
pub(crate) fn held_bytes(library: &'static Library, value: &OwnedValue) -> usize {
    let Ok((datatype, shape)) = type_and_shape(library, value) else { return 0 };
    let count = shape.count();
    if let Some(size) = datatype.size() {
        return count * size;
    }
    let Some(strings) = StringTensor::of(library, value) else { return 0 };
    let measured = count.min(MEASURED_STRINGS);
    let bytes: usize = (0..measured).map(|element| strings.length(element)).sum();
    count * STRING_OVERHEAD + bytes.saturating_mul(count) / measured.max(1)
}
