//! Judging trials: JSON strings in and out, nothing of a gateway. See `headgate_core::gates`.

use headgate_core::gates::report;
use headgate_core::gates::timeline::Exposed;
use pyo3::prelude::*;

use crate::interpreter::detached;

/// Adds the functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(judge, module)?)?;
    module.add_function(wrap_pyfunction!(latency_thresholds, module)?)?;
    module.add_function(wrap_pyfunction!(gate_power, module)?)
}

#[pyfunction]
fn judge(py: Python<'_>, evidence: &str, question: &str) -> PyResult<String> {
    detached(py, || report::judge_json(evidence, question))
}

#[pyfunction]
fn latency_thresholds(py: Python<'_>, evidence: &str, question: &str) -> PyResult<String> {
    detached(py, || report::thresholds_json(evidence, question))
}

#[pyfunction]
fn gate_power(py: Python<'_>, requests: u64, exposure: f64, base: f64, threshold: f64) -> PyResult<String> {
    let told = || report::power(Exposed { requests, exposure }, base, threshold);
    detached(py, || Ok(told()?.to_string()))
}
