//! Loads and unloads of endpoints over the protocol, and the metrics of memory. Traffic is never changed here.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Engine;
use headgate_engine::runtime::device::nvml::DeviceUsage;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::metrics::rendering::family;
use crate::serving::fetcher::Fetcher;

/// Loads endpoints into memory and unloads them.
pub trait ModelRepository: Send + Sync {
    /// Loads an endpoint. Completes at once if it is in memory.
    ///
    /// # Errors
    /// `model_not_found`; `overloaded` if too many loads wait.
    fn load(&self, name: &str) -> Result<LoadCompletion>;

    /// Takes an endpoint out of memory. It is no error if it is out already.
    ///
    /// # Errors
    /// `model_not_found`.
    fn unload(&self, name: &str) -> Result<()>;
}

/// Sends the outcome of a load to its [`LoadCompletion`].
pub struct LoadNotifier(Mutex<Option<oneshot::Sender<Result<()>>>>);

/// Receives the outcome of a load.
pub struct LoadCompletion(Option<oneshot::Receiver<Result<()>>>);

/// The two ends of a load: the notifier and the completion.
pub fn load_completion() -> (Arc<LoadNotifier>, LoadCompletion) {
    let (sender, receiver) = oneshot::channel();
    (Arc::new(LoadNotifier(Mutex::new(Some(sender)))), LoadCompletion(Some(receiver)))
}

impl LoadNotifier {
    /// Sends the outcome. Only the first call does so; the client may have left.
    pub fn notify(&self, outcome: Result<()>) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(sender.send(outcome));
        }
    }
}

impl LoadCompletion {
    /// The completion of an endpoint that is served already.
    pub fn ready() -> Self {
        Self(None)
    }

    /// Waits until the endpoint is served.
    ///
    /// # Errors
    /// The error of the load; `draining` if the gateway stops.
    pub async fn wait(self) -> Result<()> {
        let Some(receiver) = self.0 else { return Ok(()) };
        let stopped = |_| Error::new(Code::Draining, "the gateway is stopping");
        receiver.await.map_err(stopped)?
    }
}

/// The metrics of models in memory.
#[rustfmt::skip]
pub fn families(engine: &Engine, fetcher: &Fetcher) -> Vec<Value> {
    let single = |name: &str, help: &str, kind: &str, value: u64| {
        family(name, help, kind, std::iter::once(json!([{}, value])))
    };
    let states = engine.residency_counts();
    let states = states.iter().map(|(state, count)| json!([{"state": state.as_str()}, count]));
    let (memory, counters) = (engine.memory(), &engine.memory().counters);
    let mut families = vec![
        family("headgate_models", "Models that endpoints name, by state: cold (out of memory), loading, warm, draining (in memory until the last run ends).", "gauge", states),
        single("headgate_model_memory_bytes", "Memory that models take, as measured when they were loaded.", "gauge", memory.used()),
        single("headgate_model_loads_total", "Sessions created, for the first time or again.", "counter", counters.loads.load(Relaxed)),
        single("headgate_model_evictions_total", "Models that left memory to make room (--memory-budget).", "counter", counters.evictions.load(Relaxed)),
        single("headgate_model_loads_refused_total", "Loads that found no room, because all other models were pinned or running.", "counter", counters.refusals.load(Relaxed)),
        single("headgate_cold_requests_total", "Requests that found their model out of memory and waited for it.", "counter", fetcher.cold_requests.load(Relaxed)),
        single("headgate_cold_requests_failed_total", "Requests that did not get their model: the load was too slow, found no room, or failed.", "counter", fetcher.cold_failures.load(Relaxed)),
        single("headgate_cold_requests_waiting", "Requests that wait for a model now.", "gauge", fetcher.waiting() as u64),
    ];
    if let Some(budget) = memory.budget() {
        families.push(single("headgate_model_memory_budget_bytes", "The most memory that models may take.", "gauge", budget));
    }
    families
}

/// The metrics of the devices that models compute on.
#[rustfmt::skip]
pub fn device_families(engine: &Engine) -> Vec<Value> {
    let readings = engine.devices().readings();
    let gauge = |name: &str, help: &str, read: fn(&DeviceUsage) -> Option<f64>| {
        let known = readings.iter().filter_map(|(device, one)| Some(json!([{"device": device}, read(one)?])));
        family(name, help, "gauge", known)
    };
    vec![
        gauge("headgate_device_memory_used_bytes", "Memory of the device that is taken, by all processes.", |one| Some(one.used_bytes as f64)),
        gauge("headgate_device_memory_bytes", "All memory of the device.", |one| Some(one.total_bytes as f64)),
        gauge("headgate_device_busy_ratio", "The share of about the last second in which the device computed.", |one| Some(f64::from(one.busy_percent?) / 100.0)),
    ]
}
