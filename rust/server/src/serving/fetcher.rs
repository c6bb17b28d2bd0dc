//! Loads models that are out of memory, for requests. All requests for a model share one load, and each waits for a bounded time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use headgate_engine::{Engine, LoadUrgency, LoadedModel, Model};
use tokio::sync::oneshot;

use crate::serving::load_tracker::{LoadCounts, LoadTracker, LoaderPoolCounts};
use crate::serving::loader_pool::LoaderPool;

/// Threads that load models for requests; there are more while loads hang. Updates have threads of their own, so that neither waits for
/// the other.
const THREADS: usize = 2;
/// The most requests that wait for models.
const MAX_WAITING: usize = 4096;
/// How long a thread pauses after a load that found no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(2);
/// The `Retry-After` of a request whose model was not loaded in time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Loads models for requests.
pub struct Fetcher {
    engine: Arc<Engine>,
    /// The longest wait of a request.
    max_wait: Duration,
    state: Mutex<FetcherState>,
    loads: LoadTracker<Arc<Model>>,
    waiting: AtomicUsize,
    /// Requests that found their model out of memory.
    pub cold_requests: AtomicU64,
    /// Requests that did not get their model: the load took too long or failed, or there was no room.
    pub cold_failures: AtomicU64,
}

#[derive(Default)]
struct FetcherState {
    /// The models that requests wait for, by address. Each is in the queue or being loaded.
    pending: HashMap<usize, PendingModel>,
    threads: FetcherThreads,
}

/// A model that requests wait for.
#[derive(Default)]
struct PendingModel {
    requests: Vec<oneshot::Sender<Result<LoadedModel>>>,
    /// The error of the newest try, if it found no room.
    no_room: Option<Error>,
    /// Whether that refusal was counted.
    counted: bool,
    /// The number of listed requests at which those that have left are removed.
    sweep_at: usize,
}

/// The least number of listed requests at which those that have left are removed.
const SWEEP_MIN: usize = 64;

impl PendingModel {
    /// Adds a request. Requests that have left are removed whenever the list has doubled. So a long load holds at most twice the requests
    /// that wait.
    fn add(&mut self, request: oneshot::Sender<Result<LoadedModel>>) {
        if self.requests.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.requests.retain(|request| !request.is_closed());
            self.sweep_at = 2 * self.requests.len();
        }
        self.requests.push(request);
    }
}

/// The threads, which the first request that needs one starts. A model is in their queue once at most.
#[derive(Default)]
enum FetcherThreads {
    #[default]
    None,
    Running(LoaderPool<Arc<Model>>),
    Stopped,
}

impl Fetcher {
    /// A fetcher of the models of `engine`. A load may take `limit`, and a request waits for `max_wait`.
    pub fn new(engine: Arc<Engine>, max_wait: Duration, limit: Duration) -> Arc<Fetcher> {
        let (waiting, cold_requests, cold_failures) =
            (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (state, loads) = (Mutex::default(), LoadTracker::new(limit));
        Arc::new(Fetcher { engine, max_wait, state, loads, waiting, cold_requests, cold_failures })
    }

    /// Waits until `deadline` for the model to be in memory.
    ///
    /// # Errors
    /// `model_not_ready` if the load takes too long or fails; `overloaded` if there is no room, or if too many requests wait;
    /// `deadline_exceeded`.
    pub async fn fetch(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<LoadedModel> {
        self.cold_requests.fetch_add(1, Relaxed);
        let _waiting = WaitingGuard::new(&self.waiting);
        let found = self.wait(model, deadline).await;
        if found.is_err() {
            self.cold_failures.fetch_add(1, Relaxed);
        }
        found
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    async fn wait(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<LoadedModel> {
        if self.waiting() > MAX_WAITING {
            let reason = "too many requests wait for models to be loaded; try again later";
            return Err(Error::new(Code::Overloaded, reason).after(RETRY_AFTER));
        }
        let until = deadline.min(Instant::now() + self.max_wait);
        let loaded = self.request_load(model)?;
        match tokio::time::timeout_at(until.into(), loaded).await {
            Ok(outcome) => outcome.map_err(|_| stopping())?,
            Err(_) if until == deadline => {
                Err(Error::new(Code::DeadlineExceeded, "the deadline passed while the model was loaded"))
            }
            Err(_) => Err(self.not_ready_error(model)),
        }
    }

    /// The error of a request whose model was not loaded in time.
    fn not_ready_error(&self, model: &Arc<Model>) -> Error {
        let mut state = self.state();
        if !model.resident().is_being_made()
            && let Some(PendingModel { no_room: Some(error), counted, .. }) =
                state.pending.get_mut(&key(model))
        {
            let first = !std::mem::replace(counted, true);
            self.engine.memory().counters.refusals.fetch_add(u64::from(first), Relaxed);
            return error.clone();
        }
        let words =
            format!("the model was out of memory and is not back after {:.1?} (--load-wait)", self.max_wait);
        Error::new(Code::ModelNotReady, words).after(RETRY_AFTER)
    }

    /// Queues a model to be loaded, unless it is pending already.
    fn request_load(self: &Arc<Self>, model: &Arc<Model>) -> Result<oneshot::Receiver<Result<LoadedModel>>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if let Some(pending) = state.pending.get_mut(&key(model)) {
            pending.add(sender);
            return Ok(receiver);
        }
        if matches!(state.threads, FetcherThreads::None) {
            state.threads = self.start()?;
        }
        let FetcherThreads::Running(loaders) = &state.threads else { return Err(stopping()) };
        loaders.push(model.clone())?;
        state.pending.insert(key(model), PendingModel { requests: vec![sender], ..PendingModel::default() });
        Ok(receiver)
    }

    fn start(self: &Arc<Self>) -> Result<FetcherThreads> {
        let fetcher = self.clone();
        LoaderPool::start(THREADS, "hg-fetch", move |model| fetcher.load_one(model))
            .map(FetcherThreads::Running)
    }

    /// Loads a model. True if the load was abandoned meanwhile, and this thread was replaced.
    fn load_one(&self, model: &Arc<Model>) -> bool {
        if !self.claim(model) {
            return false;
        }
        let load = self.loads.begin(model.clone());
        let bring = std::panic::AssertUnwindSafe(|| self.engine.reload(model, LoadUrgency::Now));
        let mut outcome = std::panic::catch_unwind(bring).unwrap_or_else(|_| {
            Err(Error::new(Code::Internal, "loading panicked; this is a defect of Headgate"))
        });
        if outcome.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
            outcome = Err(self.loads.timeout_error());
        }
        if load.finish() {
            // Its requests got their error when it was abandoned.
            return true;
        }
        let no_room = outcome.as_ref().err().filter(|error| error.code == Code::Overloaded);
        if no_room.is_some_and(|error| self.requeue(model, error)) {
            // Runs that end make room. Until then other models are tried.
            std::thread::sleep(NO_ROOM_PAUSE);
        } else {
            self.complete(model, &outcome.map_err(as_not_ready));
        }
        false
    }

    /// Completes the requests that wait for a model.
    fn complete(&self, model: &Arc<Model>, outcome: &Result<LoadedModel>) {
        let pending = self.state().pending.remove(&key(model)).unwrap_or_default();
        for request in pending.requests {
            // The request may have left.
            drop(request.send(outcome.clone()));
        }
    }

    /// Checks the loads at `now`: cancels those that take too long, abandons those that do not end, and adds threads if models wait behind
    /// slow loads.
    pub fn check_loads(&self, now: Instant) {
        for model in self.loads.check(now) {
            self.complete(&model, &Err(as_not_ready(self.loads.timeout_error())));
        }
        let FetcherThreads::Running(loaders) = &mut self.state().threads else { return };
        loaders.adjust_threads(&self.loads, now, |_| true);
    }

    /// The counts of the loads for requests.
    pub fn load_counts(&self) -> LoadCounts {
        let threads = match &self.state().threads {
            FetcherThreads::Running(loaders) => loaders.counts(),
            _ => LoaderPoolCounts::default(),
        };
        self.loads.counts(threads)
    }

    /// Claims a model for a load. False if no request waits for it any more; it is not pending then.
    fn claim(&self, model: &Arc<Model>) -> bool {
        let mut state = self.state();
        let Some(pending) = state.pending.get_mut(&key(model)) else { return false };
        let wanted = pending.requests.iter().any(|request| !request.is_closed());
        if !wanted {
            state.pending.remove(&key(model));
        }
        wanted
    }

    /// Puts a model that found no room at the end of the queue. False if the queue is closed or full.
    fn requeue(&self, model: &Arc<Model>, no_room: &Error) -> bool {
        let mut state = self.state();
        if let Some(pending) = state.pending.get_mut(&key(model)) {
            pending.no_room = Some(no_room.clone());
        }
        match &state.threads {
            FetcherThreads::Running(loaders) => loaders.push(model.clone()).is_ok(),
            _ => false,
        }
    }

    /// Ends the threads. True if they ended by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        let threads = std::mem::replace(&mut self.state().threads, FetcherThreads::Stopped);
        let FetcherThreads::Running(loaders) = threads else { return true };
        self.loads.close();
        loaders.stop(deadline)
    }

    fn state(&self) -> MutexGuard<'_, FetcherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request for as long as it waits.
struct WaitingGuard<'a>(&'a AtomicUsize);

impl WaitingGuard<'_> {
    fn new(count: &AtomicUsize) -> WaitingGuard<'_> {
        count.fetch_add(1, Relaxed);
        WaitingGuard(count)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn key(model: &Arc<Model>) -> usize {
    Arc::as_ptr(model) as usize
}

/// The error of a load with a code of the data port. The model was served before and may be served again, so a retry can help.
fn as_not_ready(error: Error) -> Error {
    match error.code {
        Code::ModelLoadFailed => Error {
            code: Code::ModelNotReady,
            message: format!("the model was out of memory and could not be brought back: {}", error.message)
                .into(),
            retry_after: error.retry_after.or(Some(RETRY_AFTER)),
        },
        _ => error,
    }
}

fn stopping() -> Error {
    Error::new(Code::Draining, "the gateway is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_have_left_do_not_accumulate_during_a_load() {
        let mut pending = PendingModel::default();
        let mut stay = Vec::new();
        for at in 0..10_000 {
            let (sender, receiver) = oneshot::channel();
            pending.add(sender);
            if at % 100 == 0 {
                stay.push(receiver);
            }
        }
        assert!(pending.requests.len() <= 2 * stay.len() + SWEEP_MIN, "{}", pending.requests.len());
        let waiting = pending.requests.iter().filter(|request| !request.is_closed()).count();
        assert_eq!(waiting, stay.len(), "whoever waits is still listed");
    }
}
