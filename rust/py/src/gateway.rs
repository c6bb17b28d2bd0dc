//! The class `Gateway`: the data plane of one process.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::EndpointSpec;
use headgate_core::trial::report::Detail;
use headgate_server::after::exposition::ExpositionFormat;
use headgate_server::config::Config;
use headgate_server::gateway::{BoundSockets, Gateway as DataPlane};
use headgate_server::serving::trial_registry::StoredTrial;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::interpreter::{self, detached};

/// The data plane of one process: created idle, started once, stopped once.
#[pyclass(frozen, module = "headgate._native")]
pub(crate) struct Gateway {
    inner: Option<DataPlane>,
    pid: u32,
}

impl Gateway {
    /// The data plane, unless this is a fork: threads do not survive one.
    fn data_plane(&self) -> Result<&DataPlane> {
        if self.pid != std::process::id() {
            return Err(Error::new(
                Code::Internal,
                "this gateway was made before a fork, and its threads stayed in the parent; make a new one in the child, \
                 or start processes with multiprocessing's \"spawn\"",
            ));
        }
        self.inner.as_ref().ok_or_else(|| Error::new(Code::Internal, "the gateway was never made"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // A forked child has no threads to join, and their locks may never be released.
            std::mem::forget(self.inner.take());
        }
    }
}

/// Duplicates a descriptor of the caller.
fn duplicate_fd(fd: Option<RawFd>) -> Result<Option<OwnedFd>> {
    let Some(fd) = fd else { return Ok(None) };
    if fd < 0 {
        return Err(Error::invalid(format!("{fd} is no descriptor")));
    }
    // SAFETY: used for the duplication alone. The system refuses a number that is no open descriptor, and the caller keeps it open
    // meanwhile.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let duplicate = borrowed.try_clone_to_owned();
    duplicate.map(Some).map_err(|error| Error::invalid(format!("descriptor {fd} cannot be used: {error}")))
}

#[pymethods]
impl Gateway {
    #[new]
    fn new(py: Python<'_>, config: &[u8]) -> PyResult<Self> {
        let inner = detached(py, || DataPlane::new(Config::from_json(config)?))?;
        Ok(Self { inner: Some(inner), pid: std::process::id() })
    }

    #[pyo3(signature = (http_fd=None, grpc_fd=None))]
    fn start(&self, py: Python<'_>, http_fd: Option<RawFd>, grpc_fd: Option<RawFd>) -> PyResult<Vec<u8>> {
        let bound = detached(py, || {
            let sockets = BoundSockets { http: duplicate_fd(http_fd)?, grpc: duplicate_fd(grpc_fd)? };
            self.data_plane()?.start_on(sockets)
        })?;
        let grpc = bound.grpc.map(|address| address.to_string());
        Ok(interpreter::to_bytes(&json!({"http": bound.http.to_string(), "grpc": grpc})))
    }

    fn event_fd(&self, py: Python<'_>) -> PyResult<i32> {
        detached(py, || Ok(self.data_plane()?.event_fd()))
    }

    fn events(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        let events = detached(py, || Ok(Value::Array(self.data_plane()?.events())))?;
        Ok(interpreter::to_bytes(&events))
    }

    fn apply(&self, py: Python<'_>, endpoint: &[u8]) -> PyResult<u64> {
        detached(py, || self.data_plane()?.apply(EndpointSpec::from_json(endpoint)?))
    }

    fn remove(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        detached(py, || Ok(self.data_plane()?.remove(name)))
    }

    fn mark_unavailable(&self, py: Python<'_>, name: &str, reason: &str) -> PyResult<()> {
        detached(py, || {
            self.data_plane()?.mark_unavailable(name, reason);
            Ok(())
        })
    }

    fn set_refusals(&self, py: Python<'_>, refused: &[u8]) -> PyResult<()> {
        detached(py, || {
            let refused = serde_json::from_slice(refused)
                .map_err(|error| Error::invalid(format!("refused: {error}")))?;
            self.data_plane()?.set_refusals(refused);
            Ok(())
        })
    }

    fn dry_run(&self, py: Python<'_>, endpoint: &[u8]) -> PyResult<Vec<u8>> {
        detached(py, || {
            Ok(interpreter::to_bytes(
                &self.data_plane()?.dry_run(&EndpointSpec::from_json(endpoint)?).to_json(),
            ))
        })
    }

    fn cancel(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, || {
            self.data_plane()?.cancel(name);
            Ok(())
        })
    }

    fn withdraw(&self, py: Python<'_>, ticket: u64) -> PyResult<bool> {
        detached(py, || Ok(self.data_plane()?.withdraw(ticket)))
    }

    #[pyo3(signature = (endpoint=None))]
    fn status(&self, py: Python<'_>, endpoint: Option<&str>) -> PyResult<Vec<u8>> {
        let wanted = |name: &str| endpoint.is_none_or(|endpoint| endpoint == name);
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.status_of(wanted))))
    }

    fn not_ready_reasons(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        detached(py, || Ok(self.data_plane()?.not_ready_reasons()))
    }

    fn exposition(&self, py: Python<'_>, open_metrics: bool, compact: bool) -> PyResult<Vec<u8>> {
        detached(py, || Ok(self.data_plane()?.exposition(ExpositionFormat { open_metrics, compact })))
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.metrics())))
    }

    fn totals(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.totals())))
    }

    fn drift(&self, py: Python<'_>, endpoint: &str, window_seconds: u64) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.drift(endpoint, window_seconds)?)))
    }

    fn shadows(&self, py: Python<'_>, endpoint: &str) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.shadows(endpoint)?)))
    }

    fn start_replay(&self, py: Python<'_>, endpoint: &str, request: &[u8]) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.start_replay(endpoint, request)?)))
    }

    fn replays(&self, py: Python<'_>, endpoint: &str) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.replays(endpoint))))
    }

    fn cancel_replay(&self, py: Python<'_>, endpoint: &str, replay: u64) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.cancel_replay(endpoint, replay)?)))
    }

    fn trial(&self, py: Python<'_>, endpoint: &str, whole: bool) -> PyResult<Vec<u8>> {
        let detail = if whole { Detail::Whole } else { Detail::Summary };
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.trial(endpoint, detail)?)))
    }

    fn set_trial_thresholds(&self, py: Python<'_>, endpoint: &str, thresholds: &[u8]) -> PyResult<u32> {
        detached(py, || self.data_plane()?.set_trial_thresholds(endpoint, thresholds))
    }

    fn trials(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        detached(py, || Ok(interpreter::to_bytes(&self.data_plane()?.trials())))
    }

    fn stored_trial(
        &self,
        py: Python<'_>,
        endpoint: &str,
        begun_ms: u64,
    ) -> PyResult<Option<(Vec<u8>, Vec<u8>)>> {
        let stored = detached(py, || Ok(self.data_plane()?.stored_trial(endpoint, begun_ms)))?;
        Ok(stored.map(|stored| (stored.ledger, stored.units)))
    }

    fn restore_trial(&self, py: Python<'_>, endpoint: &str, ledger: &[u8], units: &[u8]) -> PyResult<()> {
        let stored = StoredTrial { ledger: ledger.to_vec(), units: units.to_vec() };
        detached(py, || self.data_plane()?.restore_trial(endpoint, &stored))
    }

    fn reopen_access_log(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.data_plane()?.reopen_access_log())
    }

    fn set_ready(&self, py: Python<'_>, ready: bool) -> PyResult<()> {
        detached(py, || {
            self.data_plane()?.set_ready(ready);
            Ok(())
        })
    }

    fn stop(&self, py: Python<'_>, drain_delay_ms: u64, grace_ms: u64) -> PyResult<bool> {
        detached(py, || {
            Ok(self
                .data_plane()?
                .stop(Duration::from_millis(drain_delay_ms), Duration::from_millis(grace_ms)))
        })
    }
}
