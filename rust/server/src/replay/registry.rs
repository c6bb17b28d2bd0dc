//! The replays of all endpoints: those that run, and the newest that have ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_capture::layout::VersionIdentity;
use headgate_core::comparison::Comparison;
use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::Endpoint;
use headgate_core::spec::Device;
use headgate_engine::Instant;
use headgate_engine::{Model, Residency, RunThreads};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::replay::report::report;
use crate::replay::run::ReplayRun;
use crate::replay::source::{RecordedFiles, Span};
use crate::replay::state::{FloorPlan, ReplayEnd, ReplayPlan, ReplayState, ReplaySummary};
use crate::shadow::cpu_budget::CpuBudget;
use crate::shadow::pairing::{OutputRules, Pairing};

/// The most replays that run at the same time.
const MAX_RUNNING: usize = 2;
/// The most replays that are kept, over all endpoints.
const MAX_KEPT: usize = 64;
/// Threads in place of those whose runs do not end.
const MAX_EXTRA: usize = 2;

/// What is replayed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The version that is asked.
    version: String,
    /// The version whose requests they are; the champion if missing.
    #[serde(default)]
    against: Option<String>,
    /// The span of time.
    #[serde(default)]
    span: Span,
    /// The most requests.
    #[serde(default)]
    max_requests: Option<u64>,
    /// How outputs are compared, by name.
    #[serde(default)]
    compare: BTreeMap<String, Comparison>,
    /// How long a run may take, in milliseconds; as long as a request if missing.
    #[serde(default, rename = "timeout")]
    timeout_ms: Option<u64>,
}

/// A version that can be run.
#[derive(Clone)]
pub struct RunnableVersion {
    /// Its model.
    pub model: Arc<Model>,
    /// The cores that one run of it may take.
    pub run_threads: u64,
}

/// Finds what can be run in what a snapshot has of a version.
pub type RunnableOf<V> = fn(&V) -> RunnableVersion;

/// The replays of all endpoints.
pub struct ReplayRegistry {
    threads: RunThreads,
    stopping: AtomicBool,
    replays: Mutex<Replays>,
}

#[derive(Default)]
struct Replays {
    last_id: u64,
    /// The oldest first.
    kept: Vec<Arc<ReplayState>>,
}

impl Default for ReplayRegistry {
    fn default() -> ReplayRegistry {
        ReplayRegistry {
            threads: RunThreads::new("hg-replay", MAX_RUNNING, MAX_EXTRA),
            stopping: AtomicBool::new(false),
            replays: Mutex::default(),
        }
    }
}

impl ReplayRegistry {
    /// Begins a replay of what is captured in `folder`, and gives its report so far. Reads files.
    ///
    /// # Errors
    /// `version_not_found`, `model_not_ready`; `policy_invalid` without captured requests, or if the version does not fit them; `overloaded`
    /// if too many replays run.
    pub fn start<V>(
        &self,
        folder: &Path,
        endpoint: &Endpoint<V>,
        (request, runnable_of): (&ReplayRequest, RunnableOf<V>),
        budget: &Arc<CpuBudget>,
    ) -> Result<Value> {
        // Files are read only if there is room; asked again under the lock, because reading them takes its time.
        self.check_room(&self.replays())?;
        if budget.cores() <= 0.0 {
            let words = "the gateway has no CPU time for replays (--shadow-cpu is 0%); start it with more";
            return Err(Error::new(Code::PolicyInvalid, words));
        }
        let plan = plan(&folder.join(&*endpoint.name), endpoint, request, runnable_of)?;
        let state = self.add(&plan)?;
        let (running, budget) = (state.clone(), budget.clone());
        let started = self.threads.add(move |thread| {
            let run = ReplayRun { plan: &plan, state: &running, budget: &budget, thread };
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.run()));
            if ended.is_err() {
                let reason = "the replay panicked; this is a defect of Headgate".to_owned();
                running.findings().end = Some(ReplayEnd::Failed(std::time::SystemTime::now(), reason));
            }
        });
        if let Err(error) = started {
            self.replays().kept.retain(|kept| !Arc::ptr_eq(kept, &state));
            return Err(error);
        }
        Ok(report(&state))
    }

    fn check_room(&self, replays: &Replays) -> Result<()> {
        if self.stopping.load(Relaxed) {
            return Err(Error::new(Code::Draining, "the gateway is stopping"));
        }
        let running = replays.kept.iter().filter(|replay| replay.is_running()).count();
        if running >= MAX_RUNNING {
            return Err(Error::new(
                Code::Overloaded,
                format!("{running} replays run already; wait for one or end it"),
            ));
        }
        Ok(())
    }

    fn add(&self, plan: &ReplayPlan) -> Result<Arc<ReplayState>> {
        let mut replays = self.replays();
        self.check_room(&replays)?;
        replays.last_id += 1;
        let state = Arc::new(ReplayState::new(replays.last_id, plan));
        replays.kept.push(state.clone());
        while replays.kept.len() > MAX_KEPT {
            let Some(oldest) = replays.kept.iter().position(|replay| !replay.is_running()) else { break };
            replays.kept.remove(oldest);
        }
        Ok(state)
    }

    /// The reports of an endpoint's replays, the newest first.
    pub fn reports(&self, endpoint: &str) -> Value {
        let replays = self.of(endpoint);
        json!({"replays": replays.iter().rev().map(|replay| report(replay)).collect::<Vec<_>>()})
    }

    /// Ends a replay; does nothing if it has ended.
    ///
    /// # Errors
    /// `not_found`.
    pub fn cancel(&self, endpoint: &str, id: u64) -> Result<Value> {
        let found = self.of(endpoint).into_iter().find(|replay| replay.id == id);
        let replay = found
            .ok_or_else(|| Error::new(Code::NotFound, format!("endpoint {endpoint:?} has no replay {id}")))?;
        replay.cancelled.store(true, Relaxed);
        Ok(report(&replay))
    }

    /// Ends the replays of an endpoint that may not go on with what is served of it now: they run a version that is gone, and hold its
    /// model; or one on a device that gets requests now.
    pub fn cancel_outdated<V>(&self, name: &str, served: Option<&Endpoint<V>>) {
        for replay in self.of(name) {
            if let Some(reason) = reason_to_end(&replay.summary, served) {
                // Set once: the first reason stays.
                let _ = replay.cancel_reason.set(reason);
                replay.cancelled.store(true, Relaxed);
            }
        }
    }

    fn of(&self, endpoint: &str) -> Vec<Arc<ReplayState>> {
        let replays = self.replays();
        replays.kept.iter().filter(|replay| replay.summary.version.endpoint == endpoint).cloned().collect()
    }

    /// Cancels runs whose deadline has passed.
    pub fn check(&self, now: Instant) {
        // A thread is added for each replay, and never for another reason.
        let _ = self.threads.check(now, false);
    }

    /// Ends all replays.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.replays().kept.iter().for_each(|replay| replay.cancelled.store(true, Relaxed));
        // No request waits for a replay.
        let _ = self.threads.stop(Instant::now());
    }

    fn replays(&self) -> MutexGuard<'_, Replays> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplayState {
    fn is_running(&self) -> bool {
        self.findings().end.is_none()
    }
}

fn reason_to_end<V>(summary: &ReplaySummary, served: Option<&Endpoint<V>>) -> Option<String> {
    let versions = served.map_or(&[][..], |endpoint| &endpoint.versions);
    let is_gone = |run: &&VersionIdentity| versions.iter().all(|version| *version.digest != run.digest);
    if let Some(VersionIdentity { version, digest, .. }) = summary.versions().find(is_gone) {
        return Some(format!("version {version:?} ({digest}) is no longer served"));
    }
    served.and_then(|endpoint| device_conflict(endpoint, &summary.version, summary.device))
}

/// Why a version is not replayed where it computes: a run takes the session of a device, and a replay, which has the lowest priority, would
/// hold it while requests wait.
fn device_conflict<V>(endpoint: &Endpoint<V>, run: &VersionIdentity, device: Device) -> Option<String> {
    let is_run = |index: &usize| *endpoint.versions[*index].digest == *run.digest;
    let gets_requests =
        (0..endpoint.versions.len()).filter(is_run).any(|index| endpoint.gets_requests(index as u8));
    (device != Device::Cpu && gets_requests).then(|| {
        let name = &run.version;
        format!(
            "version {name:?} computes on {device} and gets requests, which a replay of it would hold up; replay a version without a weight, a rule and a place in the fallback"
        )
    })
}

fn plan<V>(
    folder: &Path,
    endpoint: &Endpoint<V>,
    request: &ReplayRequest,
    runnable_of: RunnableOf<V>,
) -> Result<ReplayPlan> {
    let find = |name: &str| {
        let (_, version) = endpoint.version(name).ok_or_else(|| unknown(endpoint, name))?;
        let identity = VersionIdentity {
            endpoint: endpoint.name.to_string(),
            version: version.name.to_string(),
            digest: version.digest.to_string(),
        };
        Ok::<_, Error>((identity, runnable_of(&version.payload)))
    };
    let (version, RunnableVersion { model, run_threads }) = find(&request.version)?;
    if model.resident().state() != Residency::Warm {
        let name = &request.version;
        let words = format!(
            "version {name:?} is out of memory, and is not fetched for a replay; a request to it brings it back"
        );
        return Err(Error::new(Code::ModelNotReady, words));
    }
    if let Some(conflict) = device_conflict(endpoint, &version, model.device()) {
        return Err(Error::new(Code::PolicyInvalid, conflict));
    }
    let champion = &endpoint.versions[usize::from(endpoint.champion)].name;
    let (against, RunnableVersion { model: asked, run_threads: asked_threads }) =
        find(request.against.as_deref().unwrap_or(champion))?;
    let files = RecordedFiles::find(folder, &against, request.span)?;
    let rules = OutputRules { compare: &request.compare, labels: &endpoint.labels };
    let pair = |model: &Model| Pairing::new(&files.tensors.signature, model.signature(), rules);
    let pairing = pair(&model).map_err(|mismatch| {
        Error::new(
            Code::PolicyInvalid,
            format!("version {:?} does not fit the captured requests: {mismatch}", request.version),
        )
    })?;
    let again = match pair(&asked) {
        // On a device further runs would hold up its requests.
        Ok(_) if asked.device() != Device::Cpu => Err("the version that answered computes on a device"),
        Ok(pairing) => Ok(FloorPlan { model: asked, pairing, run_threads: asked_threads }),
        Err(_) => Err("the version that answered has other tensors now"),
    };
    Ok(ReplayPlan {
        run_threads,
        timeout: request.timeout_ms.map_or(endpoint.timeout, Duration::from_millis),
        version,
        model,
        pairing,
        against,
        again,
        files,
        span: request.span,
        max_requests: request.max_requests,
    })
}

fn unknown<V>(endpoint: &Endpoint<V>, name: &str) -> Error {
    let loaded: Vec<&str> = endpoint.versions.iter().map(|version| &*version.name).collect();
    Error::new(
        Code::VersionNotFound,
        format!(
            "version {name:?} of endpoint {:?} is not loaded; loaded are {}. Write it into the document, without a weight if it should get no traffic",
            endpoint.name,
            loaded.join(", ")
        ),
    )
}
