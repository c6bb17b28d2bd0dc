//! The function table and what every call to it needs: status to error, C string to Rust string.

use std::ffi::{CStr, c_char};

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtApi, OrtErrorCode, OrtStatusPtr};

/// The table of one loaded library; lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Api(&'static OrtApi);

impl std::ops::Deref for Api {
    type Target = OrtApi;
    fn deref(&self) -> &OrtApi {
        self.0
    }
}

impl Api {
    pub(crate) fn new(table: &'static OrtApi) -> Self {
        Self(table)
    }

    /// Turns a status into a result and frees it; `code` names whose fault a failure is, unless the caller's argument was.
    pub(crate) fn check(self, status: OrtStatusPtr, code: Code) -> Result<()> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a non-null status is ours to read and to release once.
        let (error, message) = unsafe {
            let error = (self.GetErrorCode)(status.0);
            let message = string((self.GetErrorMessage)(status.0));
            (self.ReleaseStatus)(status.0);
            (error, message)
        };
        let code = match code {
            Code::BackendFailed if error == OrtErrorCode::ORT_INVALID_ARGUMENT => Code::InvalidArgument,
            Code::BackendFailed if is_about_memory(&message) => Code::Overloaded,
            code => code,
        };
        Err(Error::new(code, message))
    }
}

/// Whether a run failed for sizes that do not go together: those of its inputs, which the signature leaves open, or those that are
/// written into a graph. The runtime gives such failures no code of their own.
pub fn is_about_sizes(message: &str) -> bool {
    const WORDS: [&str; 6] = [
        "cannot be reshaped to the requested shape",
        "Attempting to broadcast an axis by a dimension other than 1",
        "Non concat axis dimensions must match",
        "MatMul dimension mismatch",
        "GEMM: Dimension mismatch",
        "invalid expand shape",
    ];
    WORDS.iter().any(|words| message.contains(words))
}

/// Whether a run failed for want of memory.
fn is_about_memory(message: &str) -> bool {
    ["Failed to allocate memory", "Available memory of"].iter().any(|words| message.contains(words))
}

/// Copies a C string; null gives the empty string.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string.
pub(crate) unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_failed_for_is_read_from_the_runtime_s_words() {
        let sizes = "Status Message: reshape_helper.h:47 input_shape_size == size was false. The input tensor cannot be \
                     reshaped to the requested shape. Input shape:{1,5}, requested shape:{-1,32}";
        let memory =
            "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 12";
        assert!(is_about_sizes(sizes) && !is_about_memory(sizes));
        assert!(is_about_memory(memory) && !is_about_sizes(memory));
        assert!(
            !is_about_sizes("the model divides by zero") && !is_about_memory("the model divides by zero")
        );
    }
}
