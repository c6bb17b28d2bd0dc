//! Requests for a model that is out of memory: one load for all of them, on threads of its own, and a bounded wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_engine::{Engine, Model, Need, Warm};
use tokio::sync::oneshot;

use crate::serving::load_tracker::{LoadCounts, LoadTracker, LoaderPoolCounts};
use crate::serving::loader_pool::LoaderPool;

/// Threads that bring models back, more while loads hang; loads of new versions have others, so that neither waits for the other.
const THREADS: usize = 2;
/// Requests that may wait for models.
const MAX_WAITING: usize = 4096;
/// How long a thread rests after a load that found no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(2);
/// When to ask again for a model that was too long on its way.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Brings models back into memory for requests.
pub struct Fetcher {
    engine: Arc<Engine>,
    /// How long a request waits at most.
    max_wait: Duration,
    state: Mutex<FetcherState>,
    loads: LoadTracker<Arc<Model>>,
    waiting: AtomicUsize,
    /// Requests that found their model out of memory.
    pub cold_requests: AtomicU64,
    /// Requests that went without: it took too long, it failed, there was no room.
    pub cold_failures: AtomicU64,
}

#[derive(Default)]
struct FetcherState {
    /// Models that are waited for, by their addresses. Each is in the queue or being loaded.
    pending: HashMap<usize, PendingModel>,
    threads: FetcherThreads,
}

/// A model that is waited for.
#[derive(Default)]
struct PendingModel {
    requests: Vec<oneshot::Sender<Result<Warm>>>,
    /// Why there was no room when it was last tried, until it is tried again.
    no_room: Option<Error>,
    /// Whether that was counted.
    counted: bool,
    /// How many requests may be listed before those that have left are looked for.
    sweep_at: usize,
}

/// The least number of requests among which those that have left are looked for.
const SWEEP_MIN: usize = 64;

impl PendingModel {
    /// Adds a request. Those that have left are swept out whenever as many have come as there were, so that a load that takes
    /// long holds no more than twice the requests that wait.
    fn add(&mut self, request: oneshot::Sender<Result<Warm>>) {
        if self.requests.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.requests.retain(|request| !request.is_closed());
            self.sweep_at = 2 * self.requests.len();
        }
        self.requests.push(request);
    }
}

/// The threads, which are started by the first request that needs one; each model on its way is in the queue once.
#[derive(Default)]
enum FetcherThreads {
    #[default]
    None,
    Running(LoaderPool<Arc<Model>>),
    Stopped,
}

impl Fetcher {
    /// Brings back what `engine` knows, each within `limit`; a request waits `patience` for it.
    pub fn new(engine: Arc<Engine>, max_wait: Duration, limit: Duration) -> Arc<Fetcher> {
        let (waiting, cold_requests, cold_failures) =
            (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (state, loads) = (Mutex::default(), LoadTracker::new(limit));
        Arc::new(Fetcher { engine, max_wait, state, loads, waiting, cold_requests, cold_failures })
    }

    /// The model in memory, waited for until `deadline`.
    ///
    /// # Errors
    /// `model_not_ready` when it takes too long or cannot be loaded; `overloaded` when there is no room, or too many wait;
    /// `deadline_exceeded`.
    pub async fn fetch(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<Warm> {
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

    async fn wait(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<Warm> {
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

    /// Why a model is not back in time.
    fn not_ready_error(&self, model: &Arc<Model>) -> Error {
        let mut state = self.state();
        if let Some(PendingModel { no_room: Some(error), counted, .. }) = state.pending.get_mut(&key(model)) {
            let first = !std::mem::replace(counted, true);
            self.engine.memory().counters.refusals.fetch_add(u64::from(first), Relaxed);
            return error.clone();
        }
        let words =
            format!("the model was out of memory and is not back after {:.1?} (--load-wait)", self.max_wait);
        Error::new(Code::ModelNotReady, words).after(RETRY_AFTER)
    }

    /// Has a model loaded, unless somebody has already asked for it.
    fn request_load(self: &Arc<Self>, model: &Arc<Model>) -> Result<oneshot::Receiver<Result<Warm>>> {
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

    /// Brings one model back; whether the load was abandoned meanwhile: then another thread has taken this one's place.
    fn load_one(&self, model: &Arc<Model>) -> bool {
        if !self.claim(model) {
            return false;
        }
        let load = self.loads.begin(model.clone());
        let bring = std::panic::AssertUnwindSafe(|| self.engine.bring(model, Need::Now));
        let mut outcome = std::panic::catch_unwind(bring).unwrap_or_else(|_| {
            Err(Error::new(Code::Internal, "loading panicked; this is a defect of Headgate"))
        });
        if outcome.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
            outcome = Err(self.loads.timeout_error());
        }
        if load.finish() {
            // Its requests were told.
            return true;
        }
        let no_room = outcome.as_ref().err().filter(|error| error.code == Code::Overloaded);
        if no_room.is_some_and(|error| self.requeue(model, error)) {
            // Runs that end make room; until then others have their turn.
            std::thread::sleep(NO_ROOM_PAUSE);
        } else {
            self.complete(model, &outcome.map_err(as_not_ready));
        }
        false
    }

    /// Tells everybody who waits for a model what became of it.
    fn complete(&self, model: &Arc<Model>, outcome: &Result<Warm>) {
        let pending = self.state().pending.remove(&key(model)).unwrap_or_default();
        for request in pending.requests {
            // It may have left.
            drop(request.send(outcome.clone()));
        }
    }

    /// Looks at the loads at `now`: cancels those that take too long, replaces threads that do not come back from theirs, and has no
    /// model wait behind loads that hang.
    pub fn check_loads(&self, now: Instant) {
        for model in self.loads.check(now) {
            self.complete(&model, &Err(as_not_ready(self.loads.timeout_error())));
        }
        let FetcherThreads::Running(loaders) = &mut self.state().threads else { return };
        loaders.adjust_threads(&self.loads, now, |_| true);
    }

    /// What is counted of loads for requests.
    pub fn load_counts(&self) -> LoadCounts {
        let threads = match &self.state().threads {
            FetcherThreads::Running(loaders) => loaders.counts(),
            _ => LoaderPoolCounts::default(),
        };
        self.loads.counts(threads)
    }

    /// Begins to bring a model back, if somebody still waits for it; else nobody does any more.
    fn claim(&self, model: &Arc<Model>) -> bool {
        let mut state = self.state();
        let Some(pending) = state.pending.get_mut(&key(model)) else { return false };
        pending.no_room = None;
        let wanted = pending.requests.iter().any(|request| !request.is_closed());
        if !wanted {
            state.pending.remove(&key(model));
        }
        wanted
    }

    /// Puts a model for which there was no room at the end of the queue; false when that is closed or full.
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

    /// Ends the threads; true when they were gone by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        let threads = std::mem::replace(&mut self.state().threads, FetcherThreads::Stopped);
        let FetcherThreads::Running(loaders) = threads else { return true };
        self.loads.cancel(|_| true);
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

/// A failed load in the words of the data port: the model was served before, and may be again.
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
    fn requests_that_have_left_do_not_pile_up_behind_a_load() {
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
