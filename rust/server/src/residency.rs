//! What is in memory, never who gets traffic: loading and unloading over the protocol, and the figures of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Engine;
use headgate_engine::runtime::device::nvml::Reading;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::facts;
use crate::fetch::Fetcher;
use crate::io::{self, Io};
use crate::metrics::family;
use crate::publish::Publisher;

/// Somebody who waits until an endpoint is served.
pub struct Waiter(Mutex<Option<oneshot::Sender<Result<()>>>>);

/// Resolves when an endpoint is served.
pub struct Loaded(Option<oneshot::Receiver<Result<()>>>);

/// A waiter and what it waits for.
pub fn waiter() -> (Arc<Waiter>, Loaded) {
    let (sender, receiver) = oneshot::channel();
    (Arc::new(Waiter(Mutex::new(Some(sender)))), Loaded(Some(receiver)))
}

impl Waiter {
    /// Tells the outcome, once; nobody may be listening any more.
    pub fn tell(&self, outcome: Result<()>) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(sender.send(outcome));
        }
    }
}

impl Loaded {
    /// Nothing to wait for.
    pub fn already() -> Self {
        Self(None)
    }

    async fn wait(self) -> Result<()> {
        let Some(receiver) = self.0 else { return Ok(()) };
        let stopped = |_| Error::new(Code::Draining, "the gateway is stopping");
        receiver.await.map_err(stopped)?
    }
}

/// Brings an endpoint into memory and waits until it is served.
///
/// # Errors
/// `permission_denied` unless the operator allowed it; `unsupported` for parameters that would change what is loaded;
/// `model_not_found`; whatever loading fails with.
pub async fn load<'a>(repository: &str, name: &str, parameters: impl Iterator<Item = &'a str>) -> Result<()> {
    let loaded = io::with(|io| {
        check(io, repository, parameters)?;
        publisher(io)?.load(name)
    })?;
    loaded.wait().await.map_err(|error| match error.code {
        // The control plane's word for it; on the data port it is the backend that fails.
        Code::ModelLoadFailed => Error::new(Code::BackendFailed, error.message),
        _ => error,
    })
}

/// Takes an endpoint out of memory.
///
/// # Errors
/// `permission_denied` unless the operator allowed it; `unsupported` for parameters; `model_not_found`.
pub fn unload<'a>(
    io: &Io,
    repository: &str,
    name: &str,
    parameters: impl Iterator<Item = &'a str>,
) -> Result<()> {
    check(io, repository, parameters)?;
    publisher(io)?.unload(name)
}

fn check<'a>(io: &Io, repository: &str, parameters: impl Iterator<Item = &'a str>) -> Result<()> {
    if !io.shared.config.allow_repository_control {
        return Err(Error::new(
            Code::PermissionDenied,
            "loading and unloading over the protocol is off; start with --allow-repository-control",
        ));
    }
    facts::check_repository(repository)?;
    // Models depend on nothing here, so that parameter asks for nothing.
    match parameters.into_iter().find(|&key| key != "unload_dependents") {
        None => Ok(()),
        Some(key) => Err(Error::new(
            Code::Unsupported,
            format!(
                "parameter {key:?} is not supported: what a version is, its document says (headgate apply)"
            ),
        )),
    }
}

fn publisher(io: &Io) -> Result<Arc<Publisher>> {
    let publisher = io.shared.publisher.get().and_then(Weak::upgrade);
    publisher.ok_or_else(|| Error::new(Code::Draining, "the gateway is stopping"))
}

/// The metrics of models in memory.
#[rustfmt::skip]
pub fn families(engine: &Engine, fetcher: &Fetcher) -> Vec<Value> {
    let single = |name: &str, help: &str, kind: &str, value: u64| {
        family(name, help, kind, std::iter::once(json!([{}, value])))
    };
    let states = engine.states();
    let states = states.iter().map(|(state, count)| json!([{"state": state.as_str()}, count]));
    let (memory, counters) = (engine.memory(), &engine.memory().counters);
    let mut families = vec![
        family("headgate_models", "Models that endpoints name, by where they are: cold (out of memory), loading, warm, draining (in memory until the last run ends).", "gauge", states),
        single("headgate_model_memory_bytes", "Memory that models take, as measured when they were loaded.", "gauge", memory.used()),
        single("headgate_model_loads_total", "Sessions made, the first time or again.", "counter", counters.loads.load(Relaxed)),
        single("headgate_model_evictions_total", "Models that left memory to make room (--memory-budget).", "counter", counters.evictions.load(Relaxed)),
        single("headgate_model_loads_refused_total", "Loads for which there was no room: everything else was pinned or running.", "counter", counters.refusals.load(Relaxed)),
        single("headgate_cold_requests_total", "Requests that found their model out of memory and waited for it.", "counter", fetcher.waits.load(Relaxed)),
        single("headgate_cold_requests_failed_total", "Those of them that did not get it: too slow, no room, a failed load.", "counter", fetcher.misses.load(Relaxed)),
        single("headgate_cold_requests_waiting", "Requests that wait for a model now.", "gauge", fetcher.waiting() as u64),
    ];
    if let Some(budget) = memory.budget() {
        families.push(single("headgate_model_memory_budget_bytes", "The most memory that models may take.", "gauge", budget));
    }
    families
}

/// The metrics of devices that models compute on.
#[rustfmt::skip]
pub fn devices(engine: &Engine) -> Vec<Value> {
    let readings = engine.devices().readings();
    let gauge = |name: &str, help: &str, read: fn(&Reading) -> Option<f64>| {
        let known = readings.iter().filter_map(|(device, one)| Some(json!([{"device": device}, read(one)?])));
        family(name, help, "gauge", known)
    };
    vec![
        gauge("headgate_device_memory_used_bytes", "Memory of the device that is taken, by all processes.", |one| Some(one.used_bytes as f64)),
        gauge("headgate_device_memory_bytes", "All memory of the device.", |one| Some(one.total_bytes as f64)),
        gauge("headgate_device_busy_ratio", "The share of the last second or so in which the device computed.", |one| Some(f64::from(one.busy_percent?) / 100.0)),
    ]
}
