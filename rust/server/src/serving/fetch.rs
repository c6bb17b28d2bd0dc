//! Requests for a model that is out of memory: one load for all of them, on threads of its own, and a bounded wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_engine::{Engine, Model, Need, Warm};
use tokio::sync::oneshot;

use crate::serving::loaders::Loaders;
use crate::serving::loads::{LoadCounts, LoaderCounts, Loads};

/// Threads that bring models back, more while loads hang; loads of new versions have others, so that neither waits for the other.
const THREADS: usize = 2;
/// Requests that may wait for models.
const MOST_WAITING: usize = 4096;
/// How long a thread rests after a load that found no room.
const STEP: Duration = Duration::from_millis(2);
/// When to ask again for a model that was too long on its way.
const RETRY: Duration = Duration::from_secs(1);

/// Brings models back into memory for requests.
pub struct Fetcher {
    engine: Arc<Engine>,
    /// How long a request waits at most.
    patience: Duration,
    state: Mutex<State>,
    loads: Loads<Arc<Model>>,
    waiting: AtomicUsize,
    /// Requests that found their model out of memory.
    pub waits: AtomicU64,
    /// Requests that went without: it took too long, it failed, there was no room.
    pub misses: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Models that are waited for, by their addresses. Each is in the queue or being loaded.
    awaited: HashMap<usize, Awaited>,
    threads: Threads,
}

/// A model that is waited for.
#[derive(Default)]
struct Awaited {
    requests: Vec<oneshot::Sender<Result<Warm>>>,
    /// Why there was no room when it was last tried, until it is tried again.
    no_room: Option<Error>,
    /// Whether that was counted.
    counted: bool,
    /// How many requests may be listed before those that have left are looked for.
    sweep_at: usize,
}

/// The least number of requests among which those that have left are looked for.
const SWEEP: usize = 64;

impl Awaited {
    /// Adds a request. Those that have left are swept out whenever as many have come as there were, so that a load that takes
    /// long holds no more than twice the requests that wait.
    fn add(&mut self, request: oneshot::Sender<Result<Warm>>) {
        if self.requests.len() >= self.sweep_at.max(SWEEP) {
            self.requests.retain(|request| !request.is_closed());
            self.sweep_at = 2 * self.requests.len();
        }
        self.requests.push(request);
    }
}

/// The threads, which are started by the first request that needs one; each model on its way is in the queue once.
#[derive(Default)]
enum Threads {
    #[default]
    None,
    Running(Loaders<Arc<Model>>),
    Stopped,
}

impl Fetcher {
    /// Brings back what `engine` knows, each within `limit`; a request waits `patience` for it.
    pub fn new(engine: Arc<Engine>, patience: Duration, limit: Duration) -> Arc<Fetcher> {
        let (waiting, waits, misses) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (state, loads) = (Mutex::default(), Loads::new(limit));
        Arc::new(Fetcher { engine, patience, state, loads, waiting, waits, misses })
    }

    /// The model in memory, waited for until `deadline`.
    ///
    /// # Errors
    /// `model_not_ready` when it takes too long or cannot be loaded; `overloaded` when there is no room, or too many wait;
    /// `deadline_exceeded`.
    pub async fn fetch(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<Warm> {
        self.waits.fetch_add(1, Relaxed);
        let _waiting = Waiting::new(&self.waiting);
        let found = self.wait(model, deadline).await;
        if found.is_err() {
            self.misses.fetch_add(1, Relaxed);
        }
        found
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    async fn wait(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<Warm> {
        if self.waiting() > MOST_WAITING {
            let why = "too many requests wait for models to be loaded; try again later";
            return Err(Error::new(Code::Overloaded, why).after(RETRY));
        }
        let until = deadline.min(Instant::now() + self.patience);
        let loaded = self.ask(model)?;
        match tokio::time::timeout_at(until.into(), loaded).await {
            Ok(outcome) => outcome.map_err(|_| stopping())?,
            Err(_) if until == deadline => {
                Err(Error::new(Code::DeadlineExceeded, "the deadline passed while the model was loaded"))
            }
            Err(_) => Err(self.why_not(model)),
        }
    }

    /// Why a model is not back in time.
    fn why_not(&self, model: &Arc<Model>) -> Error {
        let mut state = self.state();
        if let Some(Awaited { no_room: Some(error), counted, .. }) = state.awaited.get_mut(&key(model)) {
            let first = !std::mem::replace(counted, true);
            self.engine.memory().counters.refusals.fetch_add(u64::from(first), Relaxed);
            return error.clone();
        }
        let words =
            format!("the model was out of memory and is not back after {:.1?} (--load-wait)", self.patience);
        Error::new(Code::ModelNotReady, words).after(RETRY)
    }

    /// Has a model loaded, unless somebody has already asked for it.
    fn ask(self: &Arc<Self>, model: &Arc<Model>) -> Result<oneshot::Receiver<Result<Warm>>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if let Some(awaited) = state.awaited.get_mut(&key(model)) {
            awaited.add(sender);
            return Ok(receiver);
        }
        if matches!(state.threads, Threads::None) {
            state.threads = self.start()?;
        }
        let Threads::Running(loaders) = &state.threads else { return Err(stopping()) };
        loaders.push(model.clone())?;
        state.awaited.insert(key(model), Awaited { requests: vec![sender], ..Awaited::default() });
        Ok(receiver)
    }

    fn start(self: &Arc<Self>) -> Result<Threads> {
        let fetcher = self.clone();
        Loaders::start(THREADS, "hg-fetch", move |model| fetcher.work(model)).map(Threads::Running)
    }

    /// Brings one model back; whether the load was abandoned meanwhile: then another thread has taken this one's place.
    fn work(&self, model: &Arc<Model>) -> bool {
        if !self.takes_up(model) {
            return false;
        }
        let load = self.loads.begin(model.clone());
        let bring = std::panic::AssertUnwindSafe(|| self.engine.bring(model, Need::Now));
        let mut outcome = std::panic::catch_unwind(bring).unwrap_or_else(|_| {
            Err(Error::new(Code::Internal, "loading panicked; this is a defect of Headgate"))
        });
        if outcome.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
            outcome = Err(self.loads.too_long());
        }
        if load.finish() {
            // Its requests were told.
            return true;
        }
        let no_room = outcome.as_ref().err().filter(|error| error.code == Code::Overloaded);
        if no_room.is_some_and(|error| self.comes_again(model, error)) {
            // Runs that end make room; until then others have their turn.
            std::thread::sleep(STEP);
        } else {
            self.answer(model, &outcome.map_err(told));
        }
        false
    }

    /// Tells everybody who waits for a model what became of it.
    fn answer(&self, model: &Arc<Model>, outcome: &Result<Warm>) {
        let awaited = self.state().awaited.remove(&key(model)).unwrap_or_default();
        for request in awaited.requests {
            // It may have left.
            drop(request.send(outcome.clone()));
        }
    }

    /// Looks at the loads at `now`: cancels those that take too long, replaces threads that do not come back from theirs, and has no
    /// model wait behind loads that hang.
    pub fn watch(&self, now: Instant) {
        for model in self.loads.look(now) {
            self.answer(&model, &Err(told(self.loads.too_long())));
        }
        let Threads::Running(loaders) = &mut self.state().threads else { return };
        loaders.tend(&self.loads, now, |_| true);
    }

    /// What is counted of loads for requests.
    pub fn load_counts(&self) -> LoadCounts {
        let threads = match &self.state().threads {
            Threads::Running(loaders) => loaders.counts(),
            _ => LoaderCounts::default(),
        };
        self.loads.counts(threads)
    }

    /// Begins to bring a model back, if somebody still waits for it; else nobody does any more.
    fn takes_up(&self, model: &Arc<Model>) -> bool {
        let mut state = self.state();
        let Some(awaited) = state.awaited.get_mut(&key(model)) else { return false };
        awaited.no_room = None;
        let wanted = awaited.requests.iter().any(|request| !request.is_closed());
        if !wanted {
            state.awaited.remove(&key(model));
        }
        wanted
    }

    /// Puts a model for which there was no room at the end of the queue; false when that is closed or full.
    fn comes_again(&self, model: &Arc<Model>, no_room: &Error) -> bool {
        let mut state = self.state();
        if let Some(awaited) = state.awaited.get_mut(&key(model)) {
            awaited.no_room = Some(no_room.clone());
        }
        match &state.threads {
            Threads::Running(loaders) => loaders.push(model.clone()).is_ok(),
            _ => false,
        }
    }

    /// Ends the threads; true when they were gone by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        let threads = std::mem::replace(&mut self.state().threads, Threads::Stopped);
        let Threads::Running(loaders) = threads else { return true };
        self.loads.cancel(|_| true);
        loaders.stop(deadline)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn key(model: &Arc<Model>) -> usize {
    Arc::as_ptr(model) as usize
}

/// A failed load in the words of the data port: the model was served before, and may be again.
fn told(error: Error) -> Error {
    match error.code {
        Code::ModelLoadFailed => Error {
            code: Code::ModelNotReady,
            message: format!("the model was out of memory and could not be brought back: {}", error.message)
                .into(),
            retry_after: error.retry_after.or(Some(RETRY)),
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
        let mut awaited = Awaited::default();
        let mut stay = Vec::new();
        for at in 0..10_000 {
            let (sender, receiver) = oneshot::channel();
            awaited.add(sender);
            if at % 100 == 0 {
                stay.push(receiver);
            }
        }
        assert!(awaited.requests.len() <= 2 * stay.len() + SWEEP, "{}", awaited.requests.len());
        let waiting = awaited.requests.iter().filter(|request| !request.is_closed()).count();
        assert_eq!(waiting, stay.len(), "whoever waits is still listed");
    }
}
