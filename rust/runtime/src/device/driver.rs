//! The driver of a device: memory, streams, events and copies.
//!
//! Next: `device/slab`.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Mutex;

use headgate_core::error::Result;
use ort_sys::OrtSessionOptions;

use crate::library::Library;

/// A stream or an event of a driver.
pub type DriverHandle = usize;

/// The driver of a device. A function with a stream enqueues its work there and returns before the work is done. The work of a
/// stream is done in order.
///
/// # Safety
/// Memory of `allocate` and `allocate_host` has the requested size, is aligned to 64 bytes, and stays until it is freed. `copy_in`
/// and `copy_out` touch no other bytes than those of their arguments.
pub unsafe trait Driver: Send + Sync {
    /// ONNX Runtime's name of the device's memory, and the number of the device.
    fn memory(&self) -> (&'static CStr, i32);

    /// Whether memory of this name and number is on the device.
    fn is_device_memory(&self, name: &CStr, number: i32) -> bool {
        (name, number) == self.memory()
    }

    /// Makes the device the current one of the calling thread.
    ///
    /// # Errors
    /// `backend_failed` with the driver's message.
    fn make_current(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the device failed so that this process cannot use it again. Its memory must then not be touched.
    fn is_lost(&self) -> bool {
        false
    }

    /// Adds the device's provider to session options. Sessions compute in `stream`, with at most `memory_limit` bytes (0 is no limit).
    ///
    /// # Errors
    /// `model_load_failed` that says what is missing and how to install it.
    fn add_provider(
        &self,
        library: &'static Library,
        options: NonNull<OrtSessionOptions>,
        stream: DriverHandle,
        memory_limit: u64,
    ) -> Result<()>;

    /// The lock that is held while a session is made on the device.
    fn creation_lock(&self) -> &Mutex<()>;

    /// Creates a stream.
    ///
    /// # Errors
    /// `backend_failed` with the driver's message, as for all functions below.
    fn create_stream(&self) -> Result<DriverHandle>;

    /// Creates an event.
    fn create_event(&self) -> Result<DriverHandle>;

    /// Destroys a stream.
    fn destroy_stream(&self, stream: DriverHandle);

    /// Destroys an event.
    fn destroy_event(&self, event: DriverHandle);

    /// Allocates memory of the device.
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Frees memory of the device.
    fn free(&self, start: NonNull<u8>);

    /// Allocates pinned memory of the host, which the device reads and writes directly.
    fn allocate_host(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Frees pinned memory of the host.
    fn free_host(&self, start: NonNull<u8>);

    /// Copies to the device.
    ///
    /// # Safety
    /// Both sides have `bytes` bytes, and no other code writes to them before the copy is done.
    unsafe fn copy_in(
        &self,
        to: NonNull<u8>,
        from: *const u8,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()>;

    /// Copies from the device.
    ///
    /// # Safety
    /// As [`Driver::copy_in`], and no code reads `to` before the copy is done.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: NonNull<u8>,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()>;

    /// Records the event: it happens when the earlier work of the stream is done.
    fn record(&self, event: DriverHandle, stream: DriverHandle) -> Result<()>;

    /// Makes the later work of the stream wait for the event.
    fn wait(&self, stream: DriverHandle, event: DriverHandle) -> Result<()>;

    /// Waits until the event has happened.
    fn synchronize(&self, event: DriverHandle) -> Result<()>;
}
