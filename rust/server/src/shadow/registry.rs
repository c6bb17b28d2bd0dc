//! The shadows of all endpoints. Their counts outlive the revisions that name them, and also that a shadow is switched off for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_core::error::Result;
use headgate_core::paired_outputs::PairedOutputs;
use headgate_core::shadow::{IdleShadow, ShadowSpec};
use headgate_core::spec::{Device, EndpointSpec, VersionSpec};
use headgate_core::trial::outputs::VersionOutputs;
use headgate_engine::Instant;
use headgate_engine::Model;

use crate::shadow::cpu_budget::CpuBudget;
use crate::shadow::drops::DropReason;
use crate::shadow::live_shadow::{LiveShadow, ShadowKey, ShadowPlan, ShadowState};
use crate::shadow::pairing::{OutputRules, Pairing};
use crate::shadow::queue::HeldBytes;
use crate::shadow::tally::Tally;
use crate::shadow::tally::examples::Redaction;
use crate::shadow::threads::{ShadowThreads, parallel_runs};

/// The shadows of all endpoints, and the threads that run them.
pub struct ShadowRegistry {
    budget: Arc<CpuBudget>,
    held: Arc<HeldBytes>,
    threads: ShadowThreads,
    endpoints: Mutex<HashMap<String, EndpointShadows>>,
    /// Whether no shadow takes copies any more. Changed and read under the lock of `endpoints`.
    is_stopped: AtomicBool,
}

/// The shadows of an endpoint, in the document's order.
pub struct EndpointShadows {
    /// The champion's name.
    pub champion: String,
    /// The shadows.
    pub entries: Vec<ShadowEntry>,
}

/// A shadow as the document has it, whether or not it runs.
#[derive(Clone)]
pub struct ShadowEntry {
    /// What the document says of it.
    pub spec: ShadowSpec,
    /// Its counts, if its version was loaded once.
    pub state: Option<Arc<ShadowState>>,
    /// Whether it runs.
    pub activity: ShadowActivity,
}

/// Whether a shadow runs.
#[derive(Clone)]
pub enum ShadowActivity {
    /// It gets copies.
    Live(Arc<ShadowPlan>),
    /// It gets none, for that reason.
    Idle(IdleShadow),
    /// Its endpoint was taken out of memory over the protocol.
    Unloaded,
}

impl ShadowRegistry {
    /// A registry without shadows, whose runs may take so many cores, and whose copies may hold so many bytes.
    pub fn new(cores: f64, bytes: usize) -> ShadowRegistry {
        let budget = Arc::new(CpuBudget::new(cores, Instant::now()));
        ShadowRegistry {
            threads: ShadowThreads::new(budget.clone()),
            budget,
            held: Arc::new(HeldBytes::new(bytes)),
            endpoints: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// The CPU budget.
    pub fn budget(&self) -> &Arc<CpuBudget> {
        &self.budget
    }

    /// The bytes that copies hold.
    pub fn held(&self) -> &HeldBytes {
        &self.held
    }

    /// The threads.
    pub fn threads(&self) -> &ShadowThreads {
        &self.threads
    }

    /// The shadow that a version of `spec` is, if it is one. `models` are the models of the versions, in the order of the spec, and
    /// `outputs` what is counted of their outputs. It takes no copies before it is installed.
    pub fn shadow_of(
        &self,
        spec: &EndpointSpec,
        version: &VersionSpec,
        models: &[Arc<Model>],
        outputs: &[Option<Arc<VersionOutputs>>],
    ) -> Option<Arc<LiveShadow>> {
        let shadow = spec.shadows.iter().find(|shadow| shadow.to == version.name)?;
        let index_of = |name: &str| spec.versions.iter().position(|version| version.name == name);
        let model_of = |name: &str| {
            let index = index_of(name)?;
            Some((&spec.versions[index], models.get(index)?))
        };
        let outputs_of = |name: &str| outputs.get(index_of(name)?)?.clone();
        let watched = outputs_of(&spec.champion).zip(outputs_of(&version.name));
        let ((own, model), (champion, asked)) = (model_of(&version.name)?, model_of(&spec.champion)?);
        let key = ShadowKey {
            version: (own.digest.clone(), own.run.clone()),
            champion: (champion.digest.clone(), champion.run.clone()),
            by: shadow.by,
            compare: shadow.compare.clone(),
            slices: shadow.slices.clone(),
            outputs: watched.as_ref().map(|(asked, _)| asked.watched.digest),
        };
        let paired = watched.as_ref().map(|(asked, _)| PairedOutputs::new(&asked.watched));
        let outputs = watched.map(|(asked, own)| [asked, own]);
        let plan = ShadowPlan { outputs, ..plan(spec, shadow, (own, model), (champion, asked)) };
        let known = self.find(&spec.name, &version.name).filter(|state| state.key == key);
        let state = known.unwrap_or_else(|| {
            let outputs = plan.pairing.as_ref().map_or(&[][..], |pairing| &pairing.outputs);
            let tally = Tally { paired, ..Tally::new(outputs, shadow.slices.len()) };
            let names = (spec.name.as_str(), version.name.as_str());
            Arc::new(ShadowState::new(names, key, tally, &self.held, &self.budget))
        });
        Some(Arc::new(LiveShadow { state, plan: Arc::new(plan) }))
    }

    fn start(&self, live: &LiveShadow, spec: &ShadowSpec, earlier: Option<&ShadowSpec>) {
        let changed = earlier.is_some_and(|earlier| earlier.redact != spec.redact);
        live.state.tally().examples.configure(spec.keep_examples.into(), changed);
        let most = parallel_runs(&self.budget);
        let parallel = if live.plan.instances == 0 { most } else { most.min(live.plan.instances) };
        live.state.parallel.store(parallel, Relaxed);
        match self.is_stopped.load(Relaxed) {
            true => live.state.close(DropReason::Shutdown),
            false => live.state.queue.open(),
        }
    }

    fn find(&self, endpoint: &str, version: &str) -> Option<Arc<ShadowState>> {
        let endpoints = self.lock();
        let entry = endpoints.get(endpoint)?.entries.iter().find(|entry| entry.spec.to == version)?;
        entry.state.clone()
    }

    /// Makes `live` the shadows of an endpoint that run. Those that run no more take no copies from now on.
    pub fn install(&self, spec: &EndpointSpec, live: &[Arc<LiveShadow>]) {
        let mut endpoints = self.lock();
        let before = endpoints.remove(&spec.name).map(|before| before.entries).unwrap_or_default();
        let known = |version: &str| before.iter().find(|entry| entry.spec.to == version);
        let running = spec.shadows.iter().filter_map(|shadow| {
            let live = live.iter().find(|live| live.plan.spec.to == shadow.to)?;
            let earlier = known(&shadow.to).map(|entry| &entry.spec);
            self.start(live, shadow, earlier);
            Some(ShadowEntry {
                spec: shadow.clone(),
                state: Some(live.state.clone()),
                activity: ShadowActivity::Live(live.plan.clone()),
            })
        });
        let mut entries: Vec<ShadowEntry> = running.collect();
        for idle in &spec.idle_shadows {
            let state = known(&idle.spec.to).and_then(|entry| entry.state.clone());
            let entry =
                ShadowEntry { spec: idle.spec.clone(), state, activity: ShadowActivity::Idle(idle.clone()) };
            entries.insert(idle.place.min(entries.len()), entry);
        }
        let runs = |state: &Arc<ShadowState>| live.iter().any(|live| Arc::ptr_eq(&live.state, state));
        close(before.iter().filter(|entry| !entry.state.as_ref().is_some_and(&runs)));
        if !entries.is_empty() {
            endpoints.insert(spec.name.clone(), EndpointShadows { champion: spec.champion.clone(), entries });
        }
        self.threads.set_shadows(running_states(&endpoints));
    }

    /// Takes an endpoint out that is served no more.
    pub fn remove(&self, endpoint: &str) {
        let mut endpoints = self.lock();
        if let Some(removed) = endpoints.remove(endpoint) {
            close(removed.entries.iter());
        }
        self.threads.set_shadows(running_states(&endpoints));
    }

    /// Pauses the shadows of an endpoint that was taken out of memory; installing them goes on with their counts.
    pub fn pause(&self, endpoint: &str) {
        let mut endpoints = self.lock();
        if let Some(paused) = endpoints.get_mut(endpoint) {
            close(paused.entries.iter());
            for entry in &mut paused.entries {
                if matches!(entry.activity, ShadowActivity::Live(_)) {
                    entry.activity = ShadowActivity::Unloaded;
                }
            }
        }
        self.threads.set_shadows(running_states(&endpoints));
    }

    /// Checks the threads; see [`ShadowThreads::check`].
    ///
    /// # Errors
    /// As [`ShadowThreads::check`].
    pub fn check_threads(&self, now: Instant) -> Result<()> {
        self.threads.check(now)
    }

    /// Drops what waits, cancels what runs, and joins the threads. Requests that come after this are dropped and counted.
    pub fn stop(&self) {
        let endpoints = self.lock();
        self.is_stopped.store(true, Relaxed);
        for state in endpoints.values().flat_map(|shadows| &shadows.entries).filter_map(|e| e.state.as_ref())
        {
            state.close(DropReason::Shutdown);
        }
        drop(endpoints);
        self.threads.stop();
    }

    /// Reads the shadows of an endpoint; `None` if it has none.
    pub fn read<R>(&self, endpoint: &str, read: impl FnOnce(&EndpointShadows) -> R) -> Option<R> {
        self.lock().get(endpoint).map(read)
    }

    /// The shadows of all endpoints that have counts, in the order of endpoints.
    pub fn states(&self) -> Vec<Arc<ShadowState>> {
        let endpoints = self.lock();
        let entries = endpoints.values().flat_map(|shadows| &shadows.entries);
        let mut states: Vec<_> = entries.filter_map(|entry| entry.state.clone()).collect();
        states.sort_by(|a, b| (&a.endpoint, &a.version).cmp(&(&b.endpoint, &b.version)));
        states
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, EndpointShadows>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close<'a>(entries: impl Iterator<Item = &'a ShadowEntry>) {
    entries.filter_map(|entry| entry.state.as_ref()).for_each(|state| state.close(DropReason::SwitchedOff));
}

fn running_states(endpoints: &HashMap<String, EndpointShadows>) -> Vec<Arc<ShadowState>> {
    let entries = endpoints.values().flat_map(|shadows| &shadows.entries);
    let running = entries.filter(|entry| matches!(entry.activity, ShadowActivity::Live(_)));
    running.filter_map(|entry| entry.state.clone()).collect()
}

/// What the runs of a shadow need.
fn plan(
    spec: &EndpointSpec,
    shadow: &ShadowSpec,
    (version, model): (&VersionSpec, &Arc<Model>),
    (champion, asked): (&VersionSpec, &Arc<Model>),
) -> ShadowPlan {
    let rules = OutputRules { compare: &shadow.compare, labels: &spec.labels };
    let pairing = Pairing::new(asked.signature(), model.signature(), rules);
    // On a device a second run of the champion would hold up its requests.
    let own_pairing = match &pairing {
        Ok(pairing) if asked.device() == Device::Cpu => Some(pairing.of_asked_alone(asked.signature())),
        _ => None,
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads_of = |version: &VersionSpec| match version.run.threads {
        0 => cores,
        threads => u64::from(threads),
    };
    ShadowPlan {
        model: model.clone(),
        own_pairing,
        pairing,
        outputs: None,
        timeout: Duration::from_millis(shadow.timeout_ms.unwrap_or(spec.timeout_ms)),
        instances: usize::from(version.run.instances),
        run_threads: threads_of(version),
        champion_threads: threads_of(champion),
        spec: Arc::new(shadow.clone()),
        redaction: Redaction::new(&shadow.redact, |tensor| spec.columns.get(tensor).map(Vec::as_slice)),
    }
}
