//! The class `LoadRun`: a load that is sent once, and the functions that belong to it.

use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_load::{LoadRun as Run, encode_grpc_infer as encode, selftest};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::interpreter::detached;

/// Adds the class and the functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LoadRun>()?;
    module.add_function(wrap_pyfunction!(encode_grpc_infer, module)?)?;
    module.add_function(wrap_pyfunction!(bench_selftest, module)?)
}

/// A load that is sent once: made idle, started once, stopped when it is dropped.
#[pyclass(frozen, module = "headgate._native")]
pub(crate) struct LoadRun {
    inner: Option<Run>,
    pid: u32,
}

impl LoadRun {
    /// The run, unless this is a fork: threads do not survive one.
    fn run(&self) -> Result<&Run> {
        if self.pid != std::process::id() {
            return Err(Error::new(
                Code::Internal,
                "this run was made before a fork, and its threads stayed in the parent; make a new one in the child",
            ));
        }
        self.inner.as_ref().ok_or_else(|| Error::new(Code::Internal, "the run was never made"))
    }
}

impl Drop for LoadRun {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // A forked child has no threads to join, and their locks may never be released.
            std::mem::forget(self.inner.take());
        }
    }
}

#[pymethods]
impl LoadRun {
    #[new]
    fn new(py: Python<'_>, plan: &str, bodies: Vec<Vec<u8>>) -> PyResult<Self> {
        let inner = detached(py, || Run::new(plan, bodies))?;
        Ok(Self { inner: Some(inner), pid: std::process::id() })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.run()?.start())
    }

    fn look(&self, py: Python<'_>, question: &str) -> PyResult<String> {
        detached(py, || Ok(self.run()?.look(question)?.to_string()))
    }

    fn wait(&self, py: Python<'_>, timeout_ns: u64) -> PyResult<bool> {
        detached(py, || Ok(self.run()?.wait(Duration::from_nanos(timeout_ns))))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            self.run()?.stop();
            Ok(())
        })
    }

    fn result(&self, py: Python<'_>, question: &str) -> PyResult<String> {
        detached(py, || Ok(self.run()?.result(question)?.to_string()))
    }
}

#[pyfunction]
fn encode_grpc_infer<'py>(
    py: Python<'py>,
    envelope: &str,
    raw_inputs: Vec<Vec<u8>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let message = detached(py, || encode(envelope, raw_inputs))?;
    Ok(PyBytes::new(py, &message))
}

#[pyfunction]
fn bench_selftest(py: Python<'_>, question: &str) -> PyResult<String> {
    detached(py, || Ok(selftest::selftest(question)?.to_string()))
}
