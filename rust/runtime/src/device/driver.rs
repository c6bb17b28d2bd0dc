//! What a device's driver has to do for runs.
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

/// What a device's driver does. Everything that is given a stream returns before it is done, in the order of the stream.
///
/// # Safety
/// Memory that `allocate` and `allocate_host` give is as large as asked for, aligned to 64 bytes and stays until it is freed;
/// `copy_in` and `copy_out` touch nothing beside the bytes that they are told.
pub unsafe trait Driver: Send + Sync {
    /// ONNX Runtime's name for the device's memory, and the device's number.
    fn memory(&self) -> (&'static CStr, i32);

    /// Whether what the runtime reads in that memory is on the device.
    fn is_device_memory(&self, name: &CStr, number: i32) -> bool {
        (name, number) == self.memory()
    }

    /// Makes the calling thread one that works on the device.
    ///
    /// # Errors
    /// `backend_failed` in the driver's words.
    fn make_current(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the device failed in a way that this process does not recover from: whatever is on it is better left alone.
    fn is_lost(&self) -> bool {
        false
    }

    /// Has sessions made with these options compute on the device, in that stream, with so many bytes at most (0 is no bound).
    ///
    /// # Errors
    /// `model_load_failed` saying what is missing and what brings it.
    fn add_provider(
        &self,
        library: &'static Library,
        options: NonNull<OrtSessionOptions>,
        stream: DriverHandle,
        memory_limit: u64,
    ) -> Result<()>;

    /// Held while a session is made on the device.
    fn creation_lock(&self) -> &Mutex<()>;

    /// A new stream.
    ///
    /// # Errors
    /// `backend_failed` in the driver's words, as everything below.
    fn create_stream(&self) -> Result<DriverHandle>;

    /// A new event.
    fn create_event(&self) -> Result<DriverHandle>;

    /// Frees a stream.
    fn destroy_stream(&self, stream: DriverHandle);

    /// Frees an event.
    fn destroy_event(&self, event: DriverHandle);

    /// Memory of the device.
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Frees memory of the device.
    fn free(&self, start: NonNull<u8>);

    /// Memory of the host that the device reads and writes by itself.
    fn allocate_host(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Frees memory of the host.
    fn free_host(&self, start: NonNull<u8>);

    /// Copies to the device.
    ///
    /// # Safety
    /// Both sides hold `bytes`, and nobody writes either before the stream has got there.
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
    /// As [`Driver::copy_in`], and nobody reads `to` before that.
    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: NonNull<u8>,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()>;

    /// Has the event happen when the stream gets there.
    fn record(&self, event: DriverHandle, stream: DriverHandle) -> Result<()>;

    /// Has the stream wait for the event.
    fn wait(&self, stream: DriverHandle, event: DriverHandle) -> Result<()>;

    /// Waits until the event has happened.
    fn synchronize(&self, event: DriverHandle) -> Result<()>;
}
