//! Memory that is aligned for any element type and any vector unit, and used again for the next tensor.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};

use crate::device::driver::Driver;

/// The alignment of every buffer, in bytes: a cache line, which is what AVX-512 needs.
pub const ALIGNMENT: usize = 64;

/// A buffer of this size or more is mapped in pages of its own, in bytes.
const MMAP_THRESHOLD: usize = 1 << 20;

/// The largest buffer, in bytes.
pub const MAX_BYTES: usize = 2 << 30;

/// A growable block of zero-initialised bytes at a 64-byte boundary.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    capacity: usize,
    /// The driver that allocated the memory; without one it is of the heap.
    driver: Option<Arc<dyn Driver>>,
}

// SAFETY: a buffer owns its memory alone.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuffer {}

impl Default for AlignedBuffer {
    fn default() -> Self {
        Self::of(None)
    }
}

#[repr(align(64))]
struct Aligned;

impl AlignedBuffer {
    /// An empty block: pinned memory of the driver, or the heap's memory without one.
    pub(crate) fn of(driver: Option<Arc<dyn Driver>>) -> Self {
        Self { start: NonNull::<Aligned>::dangling().cast(), capacity: 0, driver }
    }

    /// Makes room for `bytes`. The contents are lost if that needs a new block.
    ///
    /// # Errors
    /// `invalid_argument` beyond [`MAX_BYTES`]; `overloaded` without memory. Sizes come from requests, so that neither may end the
    /// process.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.capacity {
            return Ok(());
        }
        if bytes > MAX_BYTES {
            return Err(Error::invalid(format!(
                "a tensor would take {bytes} bytes; the most is {MAX_BYTES}"
            )));
        }
        *self = Self::with_capacity(rounded(bytes), self.driver.clone())?;
        Ok(())
    }

    fn with_capacity(capacity: usize, driver: Option<Arc<dyn Driver>>) -> Result<Self> {
        let start = match &driver {
            None => {
                let start = if capacity < MMAP_THRESHOLD {
                    // SAFETY: the layout's size is above zero.
                    NonNull::new(unsafe { alloc_zeroed(layout(capacity)) })
                } else {
                    map(capacity)
                };
                start.ok_or_else(|| {
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

    /// Whether it is pinned memory, which a device reads directly.
    pub(crate) fn is_pinned(&self) -> bool {
        self.driver.is_some()
    }

    /// The size of the block, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first byte. It is aligned even if the buffer is empty.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        match &self.driver {
            _ if self.capacity == 0 => {}
            Some(driver) => driver.free_host(self.start),
            // SAFETY: allocated with this layout in `with_capacity`.
            None if self.capacity < MMAP_THRESHOLD => unsafe {
                dealloc(self.start.as_ptr(), layout(self.capacity))
            },
            // SAFETY: mapped with this length in `with_capacity`.
            None => drop(unsafe { libc::munmap(self.start.as_ptr().cast(), self.capacity) }),
        }
    }
}

/// The size of the block for `bytes`. A large block has at most an eighth more, so that a tensor that grows a little fits.
pub(crate) fn rounded(bytes: usize) -> usize {
    let power = bytes.next_power_of_two().max(ALIGNMENT);
    if power <= 8 * ALIGNMENT { power } else { bytes.next_multiple_of(power / 16) }
}

/// Fresh pages, which the kernel fills with zeros on first use: of a slab for many rows, only the rows in use take memory.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: no address is asked for, and no file is named.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("a tensor's size stays below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_keep_their_room() {
        let mut buffer = AlignedBuffer::default();
        assert_eq!(buffer.start().as_ptr() as usize % ALIGNMENT, 0);
        buffer.reserve(100).unwrap();
        assert_eq!((buffer.capacity(), buffer.start().as_ptr() as usize % ALIGNMENT), (128, 0));
        let before = buffer.start();
        buffer.reserve(64).unwrap();
        assert_eq!(buffer.start(), before);
        assert!(buffer.reserve(MAX_BYTES + 1).is_err());
        for bytes in
            [1, 512, 513, 100_000, MMAP_THRESHOLD - 1, MMAP_THRESHOLD, 5 * MMAP_THRESHOLD + 1, MAX_BYTES]
        {
            let capacity = rounded(bytes);
            assert!(capacity >= bytes && capacity.is_multiple_of(ALIGNMENT), "{bytes}: {capacity}");
            assert!(bytes <= 512 || capacity <= bytes + bytes / 8, "{bytes}: {capacity}");
        }
    }

    #[test]
    fn a_large_buffer_is_zero() {
        let mut buffer = AlignedBuffer::default();
        buffer.reserve(64 << 20).unwrap();
        // SAFETY: within the buffer.
        let last = unsafe { *buffer.start().as_ptr().add((64 << 20) - 1) };
        assert_eq!((last, buffer.start().as_ptr() as usize % ALIGNMENT), (0, 0));
        buffer.reserve(65 << 20).unwrap();
    }
}
