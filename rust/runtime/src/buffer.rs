//! Bytes aligned for any element type and any vector unit, kept for the next tensor.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};

use crate::device::Driver;

/// The alignment of every buffer, in bytes: a cache line, and what AVX-512 wants.
pub const ALIGNMENT: usize = 64;

/// The largest buffer, in bytes.
pub const MAX_BYTES: usize = 2 << 30;

/// A growable block of zero-initialised bytes at a 64-byte boundary.
pub struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
    /// Whose memory it is; the heap's without one.
    driver: Option<Arc<dyn Driver>>,
}

// SAFETY: a buffer owns its memory alone.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Default for Buffer {
    fn default() -> Self {
        Self::of(None)
    }
}

#[repr(align(64))]
struct Aligned;

impl Buffer {
    /// An empty block of memory that a device reads and writes by itself, or of the heap.
    pub(crate) fn of(driver: Option<Arc<dyn Driver>>) -> Self {
        Self { start: NonNull::<Aligned>::dangling().cast(), capacity: 0, driver }
    }

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
        *self = Self::with_capacity(bytes.next_power_of_two().max(ALIGNMENT), self.driver.clone())?;
        Ok(())
    }

    fn with_capacity(capacity: usize, driver: Option<Arc<dyn Driver>>) -> Result<Self> {
        let start = match &driver {
            None => {
                // SAFETY: the layout's size is above zero.
                let start = unsafe { alloc_zeroed(layout(capacity)) };
                NonNull::new(start).ok_or_else(|| {
                    Error::new(Code::Overloaded, format!("no memory for a tensor of {capacity} bytes"))
                })?
            }
            Some(driver) => {
                let start = driver.allocate_host(capacity)?;
                // SAFETY: the driver gave that many bytes.
                unsafe { start.write_bytes(0, capacity) };
                start
            }
        };
        Ok(Self { start, capacity, driver })
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
        match &self.driver {
            _ if self.capacity == 0 => {}
            Some(driver) => driver.free_host(self.start),
            // SAFETY: allocated with this layout in `with_capacity`.
            None => unsafe { dealloc(self.start.as_ptr(), layout(self.capacity)) },
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
