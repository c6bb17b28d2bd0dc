//! The function table, and what every call to it needs: errors from statuses, and Rust strings from C strings.

use std::ffi::{CStr, c_char};

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtApi, OrtStatusPtr};

/// The table of one loaded library; lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Api(&'static OrtApi);

impl std::ops::Deref for Api {
    type Target = OrtApi;
    fn deref(&self) -> &OrtApi {
        self.0
    }
}

impl PartialEq for Api {
    fn eq(&self, other: &Api) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Api {
    pub(crate) fn new(table: &'static OrtApi) -> Self {
        Self(table)
    }

    /// Turns a status into a result, and frees it. The error has this code, or `overloaded` for want of memory.
    ///
    /// The cause of a failed run is not known here: the runtime's codes and messages do not distinguish inputs that the graph
    /// cannot take from a graph that is broken.
    pub(crate) fn check(self, status: OrtStatusPtr, code: Code) -> Result<()> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a non-null status is ours to read and to release once.
        let message = unsafe {
            let message = copy_c_string((self.GetErrorMessage)(status.0));
            (self.ReleaseStatus)(status.0);
            message
        };
        let code = match code {
            Code::BackendFailed if is_about_memory(&message) => Code::Overloaded,
            code => code,
        };
        Err(Error::new(code, message))
    }
}

/// Whether a run failed for want of memory.
fn is_about_memory(message: &str) -> bool {
    ["Failed to allocate memory", "Available memory of"].iter().any(|words| message.contains(words))
}

/// Copies a C string; null gives the empty string.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string.
pub(crate) unsafe fn copy_c_string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_read_from_the_runtime_s_words() {
        let memory =
            "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 12";
        assert!(is_about_memory(memory) && !is_about_memory("the model divides by zero"));
    }
}
