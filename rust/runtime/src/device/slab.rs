//! A block of a device's memory.
//!
//! Next: `device/io`.

use std::ptr::NonNull;
use std::sync::Arc;

use headgate_core::error::Result;

use super::driver::Driver;
use crate::buffer::rounded;

/// A block of a device's memory, freed when dropped.
pub(crate) struct Slab {
    driver: Arc<dyn Driver>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a slab owns its memory alone, and drivers free from any thread.
unsafe impl Send for Slab {}

impl Slab {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Slab> {
        let bytes = rounded(bytes);
        Ok(Slab { driver: driver.clone(), start: driver.allocate(bytes)?, bytes })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.driver.free(self.start);
    }
}
