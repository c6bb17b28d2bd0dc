//! Bytes aligned for any element type and any vector unit, kept for the next tensor.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use headgate_core::error::{Code, Error, Result};

/// The alignment of every buffer, in bytes: a cache line, and what AVX-512 wants.
pub const ALIGNMENT: usize = 64;

/// The largest buffer, in bytes.
pub const MAX_BYTES: usize = 2 << 30;

/// A growable block of zero-initialised bytes at a 64-byte boundary.
pub struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a buffer owns its memory alone.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Default for Buffer {
    fn default() -> Self {
        Self { start: NonNull::<Aligned>::dangling().cast(), capacity: 0 }
    }
}

#[repr(align(64))]
struct Aligned;

impl Buffer {
    /// Makes room for `bytes`; the contents are lost when that needs a new block.
    ///
    /// # Errors
    /// `invalid_argument` beyond [`MAX_BYTES`], `overloaded` when there is no memory: sizes come from requests, so neither may
    /// end the process.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.capacity {
            return Ok(());
        }
        if bytes > MAX_BYTES {
            return Err(Error::invalid(format!(
                "a tensor would take {bytes} bytes; the most is {MAX_BYTES}"
            )));
        }
        *self = Self::with_capacity(bytes.next_power_of_two().max(ALIGNMENT))?;
        Ok(())
    }

    fn with_capacity(capacity: usize) -> Result<Self> {
        // SAFETY: the layout's size is above zero.
        let start = unsafe { alloc_zeroed(layout(capacity)) };
        let start = NonNull::new(start).ok_or_else(|| {
            Error::new(Code::Overloaded, format!("no memory for a tensor of {capacity} bytes"))
        })?;
        Ok(Self { start, capacity })
    }

    /// The number of bytes there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first byte; aligned even when the buffer is empty.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated with this layout in `with_capacity`.
            unsafe { dealloc(self.start.as_ptr(), layout(self.capacity)) }
        }
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("a tensor's size stays below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_keep_their_room() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.start().as_ptr() as usize % ALIGNMENT, 0);
        buffer.reserve(100).unwrap();
        assert_eq!((buffer.capacity(), buffer.start().as_ptr() as usize % ALIGNMENT), (128, 0));
        let before = buffer.start();
        buffer.reserve(64).unwrap();
        assert_eq!(buffer.start(), before);
        assert!(buffer.reserve(MAX_BYTES + 1).is_err());
    }
}
