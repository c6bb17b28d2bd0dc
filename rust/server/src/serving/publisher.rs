//! Publishes updates of endpoints: loads the models that are new, swaps the snapshot, reports the outcome.
//!
//! ```text
//! apply -> ticket -> is every model loaded?  yes: swap now, on the caller's thread
//!                                             no: a loader thread loads and warms, then swaps
//! swap  -> "superseded" instead, if a newer ticket of the endpoint was swapped in, or an urgent one is in progress
//! ```
//! Urgent updates have a loader thread of their own, so that a rollback never queues behind a large model. A load that takes too long,
//! or whose models are not wanted any more, is cancelled (`serving::load_tracker`).

mod early_outcome;
mod reporting;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::{Refusals, check, compile};
use headgate_core::spec::EndpointSpec;
use headgate_engine::Instant;
use headgate_engine::{Engine, Model};
use serde_json::json;

use crate::event_queue::EventQueue;
use crate::serving::compatibility;
use crate::serving::feedback;
use crate::serving::load_tracker::{CancelReason, LoadCounts, LoadGuard, LoadTracker, LoaderPoolCounts};
use crate::serving::load_versions::{self, LoadFailure};
use crate::serving::loader_pool::LoaderPool;
use crate::serving::residency::{self, LoadCompletion, ModelRepository};
use crate::serving::shared::{LiveEndpoint, Shared};
use crate::serving::sketch_registry::SketchRegistry;
use crate::serving::update_outcome::{UnavailableReason, UpdateOutcome};
use crate::serving::updates::{EndpointUpdate, PublishState, Reload};
use crate::serving::version::{VersionParts, VersionState};
use crate::serving::watched_outputs;

/// Loader threads for ordinary updates. There is one more for urgent ones.
const LOADERS: usize = 2;

/// Publishes updates of endpoints.
pub struct Publisher {
    inner: Arc<PublisherCore>,
    loaders: Mutex<LoaderThreads>,
}

/// Has every IO thread look at the snapshot.
pub type SnapshotRefresher = Box<dyn Fn() + Send + Sync>;

/// The loader threads, which the first update that needs one starts.
enum LoaderThreads {
    None,
    Running { ordinary: Box<LoaderPool<Arc<EndpointUpdate>>>, urgent: Box<LoaderPool<Arc<EndpointUpdate>>> },
    Stopped,
}

struct PublisherCore {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    sketches: Arc<SketchRegistry>,
    events: Arc<EventQueue>,
    refresher: SnapshotRefresher,
    stopping: AtomicBool,
    loads: LoadTracker<Arc<EndpointUpdate>>,
    state: Mutex<PublishState>,
}

impl Publisher {
    /// A publisher without threads.
    pub fn new(
        shared: Arc<Shared>,
        engine: Arc<Engine>,
        sketches: Arc<SketchRegistry>,
        events: Arc<EventQueue>,
        refresher: SnapshotRefresher,
    ) -> Publisher {
        let inner = Arc::new(PublisherCore {
            loads: LoadTracker::new(shared.config.load_timeout()),
            shared,
            engine,
            sketches,
            events,
            refresher,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
        });
        Publisher { inner, loaders: Mutex::new(LoaderThreads::None) }
    }

    /// Takes in the new state of an endpoint and returns its ticket. An event with that ticket reports the outcome.
    ///
    /// # Errors
    /// `policy_invalid` if the spec contradicts itself; `overloaded` if too many updates wait.
    pub fn apply(&self, spec: EndpointSpec) -> Result<u64> {
        check(&spec)?;
        if self.inner.stopping.load(Relaxed) {
            return Err(Error::new(Code::Draining, "the gateway has been stopped"));
        }
        let update = self.inner.new_update(spec);
        let ticket = update.ticket;
        // Models that only an older state names are not wanted any more.
        self.inner.loads.cancel(|older| older.reload.is_none() && update.replaces(older));
        if load_versions::is_loaded(&self.inner.engine, &update.spec) {
            self.inner.process(&update, None);
            return Ok(ticket);
        }
        self.inner.mark_unavailable(&update, &UnavailableReason::Loading);
        self.enqueue(update.clone()).inspect_err(|error| {
            self.inner.mark_unavailable(&update, &UnavailableReason::Failed(&error.message));
            self.inner.release_urgent(&update.spec.name, ticket);
        })?;
        Ok(ticket)
    }

    fn enqueue(&self, update: Arc<EndpointUpdate>) -> Result<()> {
        let mut loaders = self.loaders();
        if matches!(*loaders, LoaderThreads::None) {
            let start = |threads| {
                let inner = self.inner.clone();
                LoaderPool::start(threads, "hg-load", move |update| run_update(&inner, update)).map(Box::new)
            };
            *loaders = LoaderThreads::Running { ordinary: start(LOADERS)?, urgent: start(1)? };
        }
        let LoaderThreads::Running { ordinary, urgent } = &*loaders else {
            return Err(Error::new(Code::Draining, "the gateway has been stopped"));
        };
        if update.is_urgent() { urgent.push(update) } else { ordinary.push(update) }
    }

    /// Checks the loads at `now`: cancels those that take too long, abandons those that do not end, and adds threads if updates wait
    /// behind slow loads.
    pub fn check_loads(&self, now: Instant) {
        let loads = &self.inner.loads;
        loads.check(now).iter().for_each(|update| self.inner.abandon(update));
        let mut loaders = self.loaders();
        let LoaderThreads::Running { ordinary, urgent } = &mut *loaders else { return };
        ordinary.adjust_threads(loads, now, |update| !update.is_urgent());
        urgent.adjust_threads(loads, now, |update| update.is_urgent());
    }

    /// The counts of the loads of updates.
    pub fn load_counts(&self) -> LoadCounts {
        let threads = match &*self.loaders() {
            LoaderThreads::Running { ordinary, urgent } => {
                let (ordinary, urgent) = (ordinary.counts(), urgent.counts());
                LoaderPoolCounts {
                    threads: ordinary.threads + urgent.threads,
                    waiting: ordinary.waiting + urgent.waiting,
                }
            }
            _ => LoaderPoolCounts::default(),
        };
        self.inner.loads.counts(threads)
    }

    fn loaders(&self) -> MutexGuard<'_, LoaderThreads> {
        self.loaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an endpoint and returns the ticket.
    pub fn remove(&self, name: &str) -> u64 {
        let mut state = self.inner.state();
        let ticket = state.next_ticket();
        state.unloads.remove(name);
        state.cancelled.remove(name);
        let generation = self.inner.store(state, name, ticket, None);
        self.inner.events.push(json!({
            "event": "removed", "ticket": ticket, "endpoint": name, "generation": generation,
        }));
        ticket
    }

    /// Cancels the loads of an endpoint, except urgent ones and those over the protocol. Their outcome is "superseded".
    pub fn cancel(&self, name: &str) {
        let mut state = self.inner.state();
        let ticket = state.next_ticket();
        state.cancelled.insert(name.to_owned(), ticket);
        drop(state);
        self.inner.cancel_superseded(name);
    }

    /// Records why an endpoint is not served that cannot be applied, because its state or its files are damaged. Does nothing if it is
    /// served.
    pub fn mark_unavailable(&self, name: &str, reason: &str) {
        let mut state = self.inner.state();
        let Some(next) = self.inner.shared.snapshot.load().with_unavailable(name, reason) else { return };
        let ticket = state.next_ticket();
        state.reason_tickets.insert(name.to_owned(), ticket);
        self.inner.shared.store(next);
        drop(state);
        self.inner.refresh();
    }

    /// Replaces the list of endpoints and versions that were never served, and of the reasons.
    pub fn set_refusals(&self, refused: Refusals) {
        let state = self.inner.state();
        let next = self.inner.shared.snapshot.load().with_refusals(refused);
        self.inner.shared.store(next);
        drop(state);
        self.inner.refresh();
    }

    /// Frees retired endpoints that no request uses any more.
    pub fn free_retired(&self) {
        let freed: Vec<_> = {
            let mut state = self.inner.state();
            let (free, held) = std::mem::take(&mut state.retired)
                .into_iter()
                .partition(|endpoint| Arc::strong_count(endpoint) == 1);
            state.retired = held;
            free
        };
        // Freed without the lock, because a large session takes milliseconds.
        drop(freed);
    }

    /// Drops the updates that wait, joins the threads, and empties the snapshot. True if all threads ended by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.inner.stopping.store(true, Relaxed);
        let loaders = std::mem::replace(&mut *self.loaders(), LoaderThreads::Stopped);
        let mut clean = true;
        self.inner.loads.close();
        if let LoaderThreads::Running { ordinary, urgent } = loaders {
            clean = ordinary.stop(deadline) & urgent.stop(deadline);
        }
        self.inner.shared.store(headgate_core::snapshot::Snapshot::default());
        self.free_retired();
        clean
    }
}

/// Carries out an update on a loader thread. True if its load was abandoned meanwhile.
fn run_update(inner: &PublisherCore, update: &Arc<EndpointUpdate>) -> bool {
    if inner.stopping.load(Relaxed) {
        return false;
    }
    let load = inner.loads.begin(update.clone());
    let process = std::panic::AssertUnwindSafe(|| inner.process(update, Some(&load)));
    if std::panic::catch_unwind(process).is_err() {
        let error = Error::new(Code::Internal, "loading panicked; this is a defect of Headgate");
        if inner.claim_report(update) {
            inner.report(update, UpdateOutcome::Failed(LoadFailure { version: String::new(), error }));
        }
        inner.release_urgent(&update.spec.name, update.ticket);
    }
    load.finish()
}

impl ModelRepository for Publisher {
    /// Requests in flight finish, and loads of the endpoint are superseded. Its traffic stays as it is, for when it is loaded again.
    fn unload(&self, name: &str) -> Result<()> {
        let mut state = self.inner.state();
        let present = self.inner.shared.snapshot.load_full();
        if present.unloaded.contains_key(name) || present.endpoints.contains_key(name) {
            let ticket = state.next_ticket();
            state.unloads.insert(name.to_owned(), ticket);
        }
        if present.unloaded.contains_key(name) {
            drop(state);
            self.inner.cancel_superseded(name);
            return Ok(());
        }
        let endpoint = present.endpoint(name)?.clone();
        let spec = state.specs.get(name).cloned();
        let spec = spec.ok_or_else(|| Error::new(Code::Internal, "an endpoint without a spec"))?;
        self.inner.shared.store_endpoint(name, present.with_unloaded(&spec));
        self.inner.shared.shadows.pause(name);
        state.retired.push(endpoint);
        drop(state);
        self.inner.cancel_superseded(name);
        self.inner.refresh();
        Ok(())
    }

    fn load(&self, name: &str) -> Result<LoadCompletion> {
        let (notifier, loaded) = residency::load_completion();
        // Spec and ticket are read under one lock, so that they belong together.
        let mut state = self.inner.state();
        let snapshot = self.inner.shared.snapshot.load_full();
        let Some(spec) = snapshot.unloaded.get(name).cloned() else {
            return snapshot.endpoint(name).map(|_| LoadCompletion::ready());
        };
        // The ticket of the state that was unloaded, so that every update of the control plane is newer.
        let ticket = state.applied.get(name).copied().unwrap_or_default();
        let reload = Some(Reload { ticket: state.next_ticket(), notifier });
        drop(state);
        self.enqueue(Arc::new(EndpointUpdate { ticket, spec, reload }))?;
        Ok(loaded)
    }
}

impl PublisherCore {
    fn state(&self) -> MutexGuard<'_, PublishState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a spec its ticket. An urgent update supersedes ordinary ones from here on.
    fn new_update(&self, spec: EndpointSpec) -> Arc<EndpointUpdate> {
        let mut state = self.state();
        let ticket = state.next_ticket();
        if spec.urgent {
            state.urgent.insert(spec.name.clone(), ticket);
        }
        let update = Arc::new(EndpointUpdate { ticket, spec: Arc::new(spec), reload: None });
        state.open.insert(ticket, update.clone());
        update
    }

    fn is_superseded(&self, update: &EndpointUpdate) -> bool {
        self.state().supersedes(update)
    }

    /// Cancels the loads of an endpoint whose updates are superseded by now.
    fn cancel_superseded(&self, name: &str) {
        self.loads.cancel(|update| update.spec.name == name && self.is_superseded(update));
    }

    /// Carries out an update. If it is urgent, ordinary ones are no longer superseded by it afterwards.
    fn process(&self, update: &EndpointUpdate, load: Option<&LoadGuard<'_, Arc<EndpointUpdate>>>) {
        self.load_and_report(update, load);
        self.release_urgent(&update.spec.name, update.ticket);
    }

    /// Loads the missing models, swaps, reports the outcome.
    fn load_and_report(&self, update: &EndpointUpdate, load: Option<&LoadGuard<'_, Arc<EndpointUpdate>>>) {
        let mut outcome =
            if self.is_superseded(update) { UpdateOutcome::Superseded } else { self.load_and_swap(update) };
        if let (UpdateOutcome::Failed(failure), Some(reason)) =
            (&mut outcome, load.and_then(LoadGuard::cancel_reason))
        {
            match reason {
                CancelReason::TimedOut => failure.error = self.loads.timeout_error(),
                CancelReason::Unwanted => outcome = UpdateOutcome::Superseded,
            }
        }
        if self.claim_report(update) {
            self.report(update, outcome);
        }
    }

    fn load_and_swap(&self, update: &EndpointUpdate) -> UpdateOutcome {
        let spec = &update.spec;
        let built = load_versions::load(&self.engine, spec).and_then(|loaded| {
            if spec.fresh {
                let signatures: Vec<_> = loaded.models.iter().map(|model| model.signature()).collect();
                compatibility::check(spec, &signatures)?;
            }
            let endpoint = self.build(spec, &loaded.models);
            endpoint
                .map(|endpoint| (Arc::new(endpoint), loaded))
                .map_err(|error| LoadFailure { version: String::new(), error })
        });
        match built {
            Err(failure) => UpdateOutcome::Failed(failure),
            Ok((endpoint, loaded)) => match self.swap(update, endpoint) {
                Some(generation) => UpdateOutcome::Applied { generation, models: loaded.models },
                None => UpdateOutcome::Superseded,
            },
        }
    }

    fn build(&self, spec: &EndpointSpec, models: &[Arc<Model>]) -> Result<LiveEndpoint> {
        let baseline = self.sketches.baseline(spec)?;
        let watched = watched_outputs::of_versions(baseline.as_deref(), spec, models);
        let outputs = |index: usize| {
            let outputs = &models[index].signature().outputs;
            (outputs.iter().map(|output| output.name.clone()).collect(), watched[index].clone())
        };
        let mut arms = self.shared.trial_registry.arms(spec, outputs, self.shared.trial_clock())?.into_iter();
        let mut next = models.iter();
        let mut endpoint = compile(spec, |version| {
            let model = next.next().cloned();
            let model = model.ok_or_else(|| Error::new(Code::Internal, "a version without a model"))?;
            let sketch = self.sketches.version(spec, version, model.signature(), baseline.as_ref())?;
            let metrics = self.shared.metrics.version(&spec.name, &version.name);
            let breaker = self.shared.limit_registry.breaker(spec, version);
            let capture = self.shared.captures.version(spec, version, model.signature());
            let shadow = self.shared.shadows.shadow_of(spec, version, models, &watched);
            let trial = arms.next().flatten();
            let receipts = feedback::receipts(&self.shared, spec, version, trial.as_deref());
            let parts = VersionParts { model, metrics, sketch, breaker, capture, shadow, trial, receipts };
            VersionState::new(spec, version, parts)
        })?;
        endpoint.quota = self.shared.limit_registry.quota(spec);
        Ok(endpoint)
    }

    /// Serves the new endpoint and returns the generation; `None` if the update is superseded by now.
    fn swap(&self, update: &EndpointUpdate, endpoint: Arc<LiveEndpoint>) -> Option<u64> {
        let mut state = self.state();
        if state.supersedes(update) {
            return None;
        }
        state.open.remove(&update.id());
        Some(self.store(state, &update.spec.name, update.ticket, Some((endpoint, &update.spec))))
    }

    /// Stores the next snapshot. Every change of an endpoint by an update becomes visible here.
    fn store(
        &self,
        mut state: MutexGuard<'_, PublishState>,
        name: &str,
        ticket: u64,
        endpoint: Option<(Arc<LiveEndpoint>, &Arc<EndpointSpec>)>,
    ) -> u64 {
        state.applied.insert(name.to_owned(), ticket);
        state.reason_tickets.remove(name);
        match &endpoint {
            Some((endpoint, spec)) => {
                let live = endpoint.versions.iter().filter_map(|version| version.payload.shadow.clone());
                self.shared.install_copies(spec, &live.collect::<Vec<_>>());
                let arms = endpoint.versions.iter().filter_map(|version| version.payload.trial.clone());
                self.shared.trial_registry.serve(name, &arms.collect::<Vec<_>>());
                state.specs.insert(name.to_owned(), Arc::clone(spec))
            }
            None => {
                self.shared.shadows.remove(name);
                state.specs.remove(name)
            }
        };
        let present = self.shared.snapshot.load_full();
        let next = present.with_endpoint(name, endpoint.map(|(endpoint, _)| endpoint));
        let generation = next.generation;
        self.shared.store_endpoint(name, next);
        state.retired.extend(present.endpoints.get(name).cloned());
        drop(state);
        self.cancel_superseded(name);
        self.refresh();
        generation
    }

    /// Has every IO thread look at the snapshot, so that none keeps an old one.
    fn refresh(&self) {
        (self.refresher)();
    }
}
