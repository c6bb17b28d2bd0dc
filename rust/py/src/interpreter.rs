//! Runs code without the interpreter lock, and turns its errors into exceptions.

use headgate_core::error::{Error, Result};
use pyo3::prelude::*;

/// Runs `work` without the interpreter lock. Its error is raised as the class of its code in `headgate.errors`.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| to_exception(py, &error))
}

/// The Python exception of an error.
pub(crate) fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    let built = py
        .import("headgate.errors")
        .and_then(|module| module.call_method1("from_code", (error.code.as_str(), &*error.message)));
    match built {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// JSON to bytes.
pub(crate) fn to_bytes(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
