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
        let of_inputs = matches!(error, OrtErrorCode::ORT_INVALID_ARGUMENT) || is_about_shapes(&message);
        let code = match code {
            Code::BackendFailed if of_inputs => Code::InvalidArgument,
            Code::BackendFailed if is_about_memory(&message) => Code::Overloaded,
            code => code,
        };
        Err(Error::new(code, message))
    }
}

/// Whether a run failed for sizes of its inputs that the signature leaves open and that do not go together. The runtime gives
/// such failures no code of their own.
fn is_about_shapes(message: &str) -> bool {
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
