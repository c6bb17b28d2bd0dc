//! ONNX Runtime's CUDA provider, and its options.
//!
//! Not here: the driver beside it (`cuda`).

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{NonNull, null_mut};

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtCUDAProviderOptionsV2, OrtSessionOptions};

use super::driver::DriverHandle;
use crate::library::Library;

/// Checks that the installed runtime can compute on NVIDIA's devices.
///
/// # Errors
/// `model_load_failed` that names the wheel that can.
pub fn check_available(library: &'static Library) -> Result<()> {
    if library.providers()?.iter().any(|provider| provider == "CUDAExecutionProvider") {
        return Ok(());
    }
    Err(Error::new(
        Code::ModelLoadFailed,
        format!(
            "the installed ONNX Runtime ({}) computes on the CPU only: pip uninstall -y onnxruntime, then pip install \
             \"headgate[gpu]\"",
            library.path().display()
        ),
    ))
}

/// Adds the provider to session options. Sessions compute on device `number`, in `stream`, with at most `memory_limit` bytes (0 is
/// no limit).
///
/// # Errors
/// `model_load_failed` with the runtime's message.
pub(super) fn add(
    library: &'static Library,
    options: NonNull<OrtSessionOptions>,
    number: u16,
    stream: DriverHandle,
    memory_limit: u64,
) -> Result<()> {
    let provider = ProviderOptions::new(library)?;
    let (number, limit) = (format!("{number}\0"), format!("{memory_limit}\0"));
    // The arena grows by the requested size and not by powers of two, because several models share the device.
    let mut wanted = vec![(c"device_id", &*number), (c"arena_extend_strategy", "kSameAsRequested\0")];
    if memory_limit > 0 {
        wanted.push((c"gpu_mem_limit", &limit));
    }
    provider.set(&wanted)?;
    provider.compute_in(stream)?;
    // SAFETY: live options on both sides; the provider's are copied.
    let status = unsafe {
        (library.api.SessionOptionsAppendExecutionProvider_CUDA_V2)(options.as_ptr(), provider.raw.as_ptr())
    };
    library.api.check(status, Code::ModelLoadFailed)
}

/// The provider's options, released after use.
struct ProviderOptions {
    library: &'static Library,
    raw: NonNull<OrtCUDAProviderOptionsV2>,
}

impl ProviderOptions {
    fn new(library: &'static Library) -> Result<ProviderOptions> {
        let mut raw = null_mut();
        // SAFETY: a valid out-pointer.
        let status = unsafe { (library.api.CreateCUDAProviderOptions)(&mut raw) };
        library.api.check(status, Code::ModelLoadFailed)?;
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::new(Code::ModelLoadFailed, "no provider options"))?;
        Ok(ProviderOptions { library, raw })
    }

    /// Sets all options at once: an option that is not in the list goes back to its default. Values end with a NUL.
    fn set(&self, options: &[(&CStr, &str)]) -> Result<()> {
        let keys: Vec<_> = options.iter().map(|(key, _)| key.as_ptr()).collect();
        let values: Vec<_> = options.iter().map(|(_, value)| value.as_ptr().cast::<c_char>()).collect();
        // SAFETY: live options; each list has `count` C strings, which are copied.
        let status = unsafe {
            let (keys, values, count) = (keys.as_ptr(), values.as_ptr(), options.len());
            (self.library.api.UpdateCUDAProviderOptions)(self.raw.as_ptr(), keys, values, count)
        };
        self.library.api.check(status, Code::ModelLoadFailed)
    }

    fn compute_in(&self, stream: DriverHandle) -> Result<()> {
        // SAFETY: live options; the stream outlives the session that is made with them.
        let status = unsafe {
            (self.library.api.UpdateCUDAProviderOptionsWithValue)(
                self.raw.as_ptr(),
                c"user_compute_stream".as_ptr(),
                stream as *mut c_void,
            )
        };
        self.library.api.check(status, Code::ModelLoadFailed)
    }
}

impl Drop for ProviderOptions {
    fn drop(&mut self) {
        // SAFETY: created above, released once.
        unsafe { (self.library.api.ReleaseCUDAProviderOptions)(self.raw.as_ptr()) }
    }
}
