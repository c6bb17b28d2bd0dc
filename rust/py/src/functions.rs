//! The functions of the module: slots, baselines, inspection of libraries, models and receipts, the table of errors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use headgate_core::error::{Code, Error, Result};
use headgate_core::explain::{self, HypotheticalRequest};
use headgate_core::slots::{self, SlotTable};
use headgate_core::snapshot::compile;
use headgate_core::spec::EndpointSpec;
use headgate_server::feedback::state_file::{self, Found};
use headgate_server::inspect;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::interpreter::{self, detached};

/// Adds the functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_weights, module)?)?;
    module.add_function(wrap_pyfunction!(slot_of, module)?)?;
    module.add_function(wrap_pyfunction!(explain_route, module)?)?;
    module.add_function(wrap_pyfunction!(fit_baseline, module)?)?;
    module.add_function(wrap_pyfunction!(library_info, module)?)?;
    module.add_function(wrap_pyfunction!(inspect_model, module)?)?;
    module.add_function(wrap_pyfunction!(receipts_are_whole, module)?)?;
    module.add_function(wrap_pyfunction!(error_codes, module)?)
}

fn parse_argument<T: serde::de::DeserializeOwned>(name: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| Error::invalid(format!("{name}: {error}")))
}

#[pyfunction]
fn set_weights(py: Python<'_>, table: &[u8], weights: &[u8]) -> PyResult<Vec<u8>> {
    detached(py, || {
        let table: SlotTable = parse_argument("table", table)?;
        let weights: BTreeMap<String, u16> = parse_argument("weights", weights)?;
        let (table, moves) = table.with_weights(&weights)?;
        Ok(interpreter::to_bytes(&json!({"table": table, "moves": moves})))
    })
}

#[pyfunction]
fn slot_of(salt: &str, key: &[u8]) -> u16 {
    slots::slot_of(salt, key)
}

#[pyfunction]
fn explain_route(py: Python<'_>, endpoint: &[u8], request: &[u8]) -> PyResult<Vec<u8>> {
    detached(py, || {
        let endpoint = compile(&EndpointSpec::from_json(endpoint)?, |_| Ok(()))?;
        let request: HypotheticalRequest = parse_argument("request", request)?;
        let explanation = explain::explain(&endpoint, &request)?;
        Ok(interpreter::to_bytes(&json!(explanation)))
    })
}

#[pyfunction]
fn fit_baseline(py: Python<'_>, columns: &[u8], values: Vec<PyBuffer<f64>>) -> PyResult<Vec<u8>> {
    let copies = values.iter().map(|buffer| buffer.to_vec(py)).collect::<PyResult<Vec<_>>>()?;
    detached(py, || {
        let columns: Vec<headgate_sketch::Column> = parse_argument("columns", columns)?;
        let slices: Vec<&[f64]> = copies.iter().map(Vec::as_slice).collect();
        let baseline =
            headgate_sketch::fit(&columns, &slices).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(baseline.to_json())
    })
}

#[pyfunction]
fn library_info(py: Python<'_>, path: &str) -> PyResult<Vec<u8>> {
    detached(py, || Ok(interpreter::to_bytes(&inspect::library(path)?)))
}

#[pyfunction]
fn inspect_model(py: Python<'_>, library: &str, model: &str) -> PyResult<Vec<u8>> {
    detached(py, || Ok(interpreter::to_bytes(&inspect::model(library, model)?)))
}

#[pyfunction]
fn receipts_are_whole(py: Python<'_>, path: PathBuf) -> PyResult<bool> {
    detached(py, || match state_file::read(&path) {
        Ok(found) => Ok(found != Found::Damaged),
        Err(error) => {
            Err(Error::new(Code::StorageFailed, format!("{} cannot be read: {error}", path.display())))
        }
    })
}

#[pyfunction]
fn error_codes() -> Vec<u8> {
    let rows: Vec<Value> = Code::ALL
        .iter()
        .map(|code| json!({"code": code, "http": code.http(), "grpc": code.grpc(), "retry": code.retry()}))
        .collect();
    interpreter::to_bytes(&Value::Array(rows))
}
