//! From a spec to a served snapshot: load what is new, swap, tell.
//!
//! ```text
//! apply -> ticket -> everything loaded already?  yes: swap now, on the caller's thread
//!                                                 no: a loader thread loads and warms, then swaps
//! swap  -> unless a newer ticket of the endpoint was swapped in, or an urgent one is on its way: then "superseded"
//! ```
//! Urgent specs have a loader of their own, so that a rollback never queues behind somebody's large model. A load that takes too long,
//! or that nobody wants any more, is cancelled (`serving::loads`).

mod telling;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::{Refusals, check, compile};
use headgate_core::spec::EndpointSpec;
use headgate_engine::{Engine, Model};
use serde_json::json;

use crate::serving::drift::Sketches;
use crate::serving::fit;
use crate::serving::load_versions::{self, LoadFailure};
use crate::serving::loaders::Loaders;
use crate::serving::loads::{Load, LoadCounts, LoaderCounts, Loads, Why};
use crate::serving::orders::{Order, Reload, State};
use crate::serving::outcome::{News, Outcome};
use crate::serving::residency::{self, Loaded, Repository};
use crate::serving::shared::{LiveEndpoint, Shared};
use crate::serving::version::{VersionParts, VersionState};
use crate::wake::Events;

/// Loader threads for ordinary specs; one more takes the urgent ones.
const LOADERS: usize = 2;

/// Publishes endpoints.
pub struct Publisher {
    inner: Arc<Inner>,
    loaders: Mutex<Threads>,
}

/// Tells every IO thread to look at the snapshot.
pub type Refreshed = Box<dyn Fn() + Send + Sync>;

/// The loader threads, which are started by the first spec that needs one.
enum Threads {
    None,
    Running { ordinary: Box<Loaders<Arc<Order>>>, urgent: Box<Loaders<Arc<Order>>> },
    Stopped,
}

struct Inner {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    sketches: Arc<Sketches>,
    events: Arc<Events>,
    refreshed: Refreshed,
    stopping: AtomicBool,
    loads: Loads<Arc<Order>>,
    state: Mutex<State>,
}

impl Publisher {
    /// A publisher without threads.
    pub fn new(
        shared: Arc<Shared>,
        engine: Arc<Engine>,
        sketches: Arc<Sketches>,
        events: Arc<Events>,
        refreshed: Refreshed,
    ) -> Publisher {
        let inner = Arc::new(Inner {
            loads: Loads::new(shared.config.load_timeout()),
            shared,
            engine,
            sketches,
            events,
            refreshed,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
        });
        Publisher { inner, loaders: Mutex::new(Threads::None) }
    }

    /// Takes a spec in and returns its ticket; an event with that ticket tells the outcome.
    ///
    /// # Errors
    /// `policy_invalid` when the spec contradicts itself; `overloaded` when too many wait.
    pub fn apply(&self, spec: EndpointSpec) -> Result<u64> {
        check(&spec)?;
        if self.inner.stopping.load(Relaxed) {
            return Err(Error::new(Code::Draining, "the gateway has been stopped"));
        }
        let order = self.inner.order(spec);
        let ticket = order.ticket;
        // What only an older state names is not wanted any more.
        self.inner.loads.cancel(|older| older.reload.is_none() && order.replaces(older));
        if load_versions::is_loaded(&self.inner.engine, &order.spec) {
            self.inner.carry_out(&order, None);
            return Ok(ticket);
        }
        self.inner.excuse(&order, &News::Loading);
        let order = Arc::new(order);
        self.enqueue(order.clone()).inspect_err(|error| {
            self.inner.excuse(&order, &News::Failed(&error.message));
            self.inner.settle(&order.spec.name, ticket);
        })?;
        Ok(ticket)
    }

    fn enqueue(&self, order: Arc<Order>) -> Result<()> {
        let mut loaders = self.loaders();
        if matches!(*loaders, Threads::None) {
            let start = |threads| {
                let inner = self.inner.clone();
                Loaders::start(threads, "hg-load", move |order| work(&inner, order)).map(Box::new)
            };
            *loaders = Threads::Running { ordinary: start(LOADERS)?, urgent: start(1)? };
        }
        let Threads::Running { ordinary, urgent } = &*loaders else {
            return Err(Error::new(Code::Draining, "the gateway has been stopped"));
        };
        if order.is_urgent() { urgent.push(order) } else { ordinary.push(order) }
    }

    /// Looks at the loads at `now`: cancels those that take too long, abandons those that do not end, and has no order wait behind
    /// loads that are slow.
    pub fn watch(&self, now: Instant) {
        let loads = &self.inner.loads;
        loads.look(now).iter().for_each(|order| self.inner.abandon(order));
        let mut loaders = self.loaders();
        let Threads::Running { ordinary, urgent } = &mut *loaders else { return };
        ordinary.tend(loads, now, |order| !order.is_urgent());
        urgent.tend(loads, now, |order| order.is_urgent());
    }

    /// What is counted of loads of new states.
    pub fn load_counts(&self) -> LoadCounts {
        let threads = match &*self.loaders() {
            Threads::Running { ordinary, urgent } => {
                let (ordinary, urgent) = (ordinary.counts(), urgent.counts());
                LoaderCounts {
                    threads: ordinary.threads + urgent.threads,
                    waiting: ordinary.waiting + urgent.waiting,
                }
            }
            _ => LoaderCounts::default(),
        };
        self.inner.loads.counts(threads)
    }

    fn loaders(&self) -> MutexGuard<'_, Threads> {
        self.loaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an endpoint away and returns the ticket.
    pub fn remove(&self, name: &str) -> u64 {
        let mut state = self.inner.state();
        let ticket = state.next();
        state.unloads.remove(name);
        state.cancelled.remove(name);
        let generation = self.inner.store(state, name, ticket, None);
        self.inner.events.push(json!({
            "event": "removed", "ticket": ticket, "endpoint": name, "generation": generation,
        }));
        ticket
    }

    /// Ends the loads of an endpoint that are on their way, but for urgent ones and those over the protocol; each is superseded.
    pub fn cancel(&self, name: &str) {
        let mut state = self.inner.state();
        let ticket = state.next();
        state.cancelled.insert(name.to_owned(), ticket);
        drop(state);
        self.inner.cancel_superseded(name);
    }

    /// Says why an endpoint is not served that cannot even be asked for: its state or its files are damaged. Nothing for one that is
    /// served.
    pub fn excuse(&self, name: &str, why: &str) {
        let mut state = self.inner.state();
        let Some(next) = self.inner.shared.snapshot.load().with_unavailable(name, why) else { return };
        let ticket = state.next();
        state.excused.insert(name.to_owned(), ticket);
        self.inner.shared.store(next);
        drop(state);
        self.inner.refresh();
    }

    /// Says of which endpoints and versions nothing was ever served, and why, in the place of what was said before.
    pub fn refuse(&self, refused: Refusals) {
        let state = self.inner.state();
        let next = self.inner.shared.snapshot.load().with_refusals(refused);
        self.inner.shared.store(next);
        drop(state);
        self.inner.refresh();
    }

    /// Frees replaced endpoints that no request holds any more.
    pub fn sweep(&self) {
        let freed: Vec<_> = {
            let mut state = self.inner.state();
            let (free, held) = std::mem::take(&mut state.retired)
                .into_iter()
                .partition(|endpoint| Arc::strong_count(endpoint) == 1);
            state.retired = held;
            free
        };
        // Sessions are released outside the lock: a large one takes milliseconds.
        drop(freed);
    }

    /// Drops what waits to be loaded, joins the threads, and lets go of everything that was served; true when all threads
    /// were gone by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.inner.stopping.store(true, Relaxed);
        let loaders = std::mem::replace(&mut *self.loaders(), Threads::Stopped);
        let mut clean = true;
        self.inner.loads.cancel(|_| true);
        if let Threads::Running { ordinary, urgent } = loaders {
            clean = ordinary.stop(deadline) & urgent.stop(deadline);
        }
        self.inner.shared.store(headgate_core::snapshot::Snapshot::default());
        self.sweep();
        clean
    }
}

/// Loads what an order names, swaps, tells; whether the load was abandoned meanwhile.
fn work(inner: &Inner, order: &Arc<Order>) -> bool {
    if inner.stopping.load(Relaxed) {
        return false;
    }
    let load = inner.loads.begin(order.clone());
    let carry_out = std::panic::AssertUnwindSafe(|| inner.carry_out(order, Some(&load)));
    if std::panic::catch_unwind(carry_out).is_err() {
        let error = Error::new(Code::Internal, "loading panicked; this is a defect of Headgate");
        inner.tell(order, Outcome::Failed(LoadFailure { version: String::new(), error }));
        inner.settle(&order.spec.name, order.ticket);
    }
    load.finish()
}

impl Repository for Publisher {
    /// Requests in flight finish, and a load on its way comes to nothing. The traffic stays as it is for when the endpoint comes back.
    fn unload(&self, name: &str) -> Result<()> {
        let mut state = self.inner.state();
        let present = self.inner.shared.snapshot.load_full();
        if present.unloaded.contains_key(name) || present.endpoints.contains_key(name) {
            let ticket = state.next();
            state.unloads.insert(name.to_owned(), ticket);
        }
        if present.unloaded.contains_key(name) {
            drop(state);
            self.inner.cancel_superseded(name);
            return Ok(());
        }
        let endpoint = present.endpoint(name)?.clone();
        let spec = state.specs.get(name).cloned();
        let spec =
            spec.ok_or_else(|| Error::new(Code::Internal, "an endpoint that was made from nothing"))?;
        self.inner.shared.store(present.with_unloaded(&spec));
        state.retired.push(endpoint);
        drop(state);
        self.inner.cancel_superseded(name);
        self.inner.refresh();
        Ok(())
    }

    fn load(&self, name: &str) -> Result<Loaded> {
        let (waits, loaded) = residency::waiter();
        // Under one lock, so that the spec is the one that its ticket stands for.
        let mut state = self.inner.state();
        let snapshot = self.inner.shared.snapshot.load_full();
        let Some(spec) = snapshot.unloaded.get(name).cloned() else {
            return snapshot.endpoint(name).map(|_| Loaded::already());
        };
        // The ticket of the state that was unloaded: whatever the control plane sends meanwhile is newer.
        let ticket = state.floor.get(name).copied().unwrap_or_default();
        let reload = Some(Reload { asked: state.next(), waits });
        drop(state);
        self.enqueue(Arc::new(Order { ticket, spec, reload }))?;
        Ok(loaded)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a spec; an urgent one stands in the way of ordinary ones from here on.
    fn order(&self, spec: EndpointSpec) -> Order {
        let mut state = self.state();
        let ticket = state.next();
        if spec.urgent {
            state.urgent.insert(spec.name.clone(), ticket);
        }
        Order { ticket, spec: Arc::new(spec), reload: None }
    }

    fn superseded(&self, order: &Order) -> bool {
        self.state().supersedes(order)
    }

    /// Ends the loads of an endpoint that somebody else has the say over by now.
    fn cancel_superseded(&self, name: &str) {
        self.loads.cancel(|order| order.spec.name == name && self.superseded(order));
    }

    /// Whoever asked for it is told, and what it brings will be thrown away.
    fn abandon(&self, order: &Order) {
        let superseded = {
            let mut state = self.state();
            if state.floor.get(&order.spec.name) == Some(&order.ticket) && order.reload.is_none() {
                // It was swapped in at this moment after all, and whoever loaded it tells.
                return;
            }
            let superseded = state.supersedes(order);
            // Before anybody is told: from here on its thread neither swaps nor tells.
            state.abandoned.insert(order.id());
            superseded
        };
        let outcome = match superseded {
            true => Outcome::Superseded,
            false => Outcome::Failed(LoadFailure { version: String::new(), error: self.loads.too_long() }),
        };
        self.tell(order, outcome);
        self.settle(&order.spec.name, order.ticket);
    }

    /// Sees an order through; an urgent one stands in the way of ordinary ones until then.
    fn carry_out(&self, order: &Order, load: Option<&Load<'_, Arc<Order>>>) {
        self.publish(order, load);
        self.settle(&order.spec.name, order.ticket);
    }

    /// Loads what is missing, swaps, tells.
    fn publish(&self, order: &Order, load: Option<&Load<'_, Arc<Order>>>) {
        let mut outcome =
            if self.superseded(order) { Outcome::Superseded } else { self.load_and_swap(order) };
        if let (Outcome::Failed(failure), Some(why)) = (&mut outcome, load.and_then(Load::cancelled)) {
            match why {
                Why::TooLong => failure.error = self.loads.too_long(),
                Why::Unwanted => outcome = Outcome::Superseded,
            }
        }
        // Of an abandoned load its sender has been told.
        if !self.state().abandoned.remove(&order.id()) {
            self.tell(order, outcome);
        }
    }

    fn load_and_swap(&self, order: &Order) -> Outcome {
        let spec = &order.spec;
        let built = load_versions::load(&self.engine, spec).and_then(|loaded| {
            if spec.fresh {
                let signatures: Vec<_> = loaded.models.iter().map(|model| model.signature()).collect();
                fit::check(spec, &signatures)?;
            }
            let endpoint = self.build(spec, &loaded.models);
            endpoint
                .map(|endpoint| (Arc::new(endpoint), loaded))
                .map_err(|error| LoadFailure { version: String::new(), error })
        });
        match built {
            Err(failure) => Outcome::Failed(failure),
            Ok((endpoint, loaded)) => match self.swap(order, endpoint) {
                Some(generation) => Outcome::Applied { generation, models: loaded.models },
                None => Outcome::Superseded,
            },
        }
    }

    fn build(&self, spec: &EndpointSpec, models: &[Arc<Model>]) -> Result<LiveEndpoint> {
        let baseline = self.sketches.baseline(spec)?;
        let mut models = models.iter();
        let mut endpoint = compile(spec, |version| {
            let model = models.next().cloned();
            let model = model.ok_or_else(|| Error::new(Code::Internal, "a version without a model"))?;
            let sketch = self.sketches.version(spec, version, model.signature(), baseline.as_ref())?;
            let metrics = self.shared.metrics.version(&spec.name, &version.name);
            let breaker = self.shared.guards.breaker(spec, version);
            VersionState::new(spec, version, VersionParts { model, metrics, sketch, breaker })
        })?;
        endpoint.quota = self.shared.guards.quota(spec);
        Ok(endpoint)
    }

    /// Serves what an order asks for, and returns the generation; `None` when somebody else has the say by now.
    fn swap(&self, order: &Order, endpoint: Arc<LiveEndpoint>) -> Option<u64> {
        let state = self.state();
        if state.supersedes(order) {
            return None;
        }
        Some(self.store(state, &order.spec.name, order.ticket, Some((endpoint, &order.spec))))
    }

    /// The one store that makes a change visible.
    fn store(
        &self,
        mut state: MutexGuard<'_, State>,
        name: &str,
        ticket: u64,
        endpoint: Option<(Arc<LiveEndpoint>, &Arc<EndpointSpec>)>,
    ) -> u64 {
        state.floor.insert(name.to_owned(), ticket);
        state.excused.remove(name);
        match &endpoint {
            Some((_, spec)) => state.specs.insert(name.to_owned(), Arc::clone(spec)),
            None => state.specs.remove(name),
        };
        let present = self.shared.snapshot.load_full();
        let next = present.with_endpoint(name, endpoint.map(|(endpoint, _)| endpoint));
        let generation = next.generation;
        self.shared.store(next);
        state.retired.extend(present.endpoints.get(name).cloned());
        drop(state);
        self.cancel_superseded(name);
        self.refresh();
        generation
    }

    /// Has every IO thread look at the snapshot, so that none holds on to an old one.
    fn refresh(&self) {
        (self.refreshed)();
    }
}
