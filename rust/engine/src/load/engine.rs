//! Loads models: from a file to a model whose first request is not its first run.
//!
//! A model is loaded once for each digest and lives as long as something holds it. Everything here blocks. It runs on the loader threads of
//! the server, never on IO or pool threads. Next: `warm_up`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{Device, GraphOptimization, RunSpec};
use headgate_core::tensor::Signature;
use headgate_runtime::{Library, Session, SessionOptions};
use serde_json::Value;

use super::warm_up;
use crate::compute::{Constant, DeviceSessions, Devices, Executable};
use crate::memory::{ExecutableSource, LoadUrgency, ModelMemory, Residency, ResidentExecutable};
use crate::models::{LoadedModel, Model, ModelThreads, PlacementPolicy};
use crate::time::Instant;
use crate::warmup::WarmupInputs;

/// What a version is made of.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// A model file.
    Artifact(&'a Path),
    /// Constant outputs by name, under another version's signature.
    Constant(&'a BTreeMap<String, Value>, &'a Signature),
}

/// Loads models, and knows those that are loaded.
pub struct Engine {
    library: Option<PathBuf>,
    threads: ModelThreads,
    loaded: Mutex<HashMap<ModelKey, Weak<Model>>>,
    /// The executables, by digest and session spec. Models that are run differently share them.
    sessions: Mutex<HashMap<(String, SessionSpec), Weak<ResidentExecutable>>>,
    memory: ModelMemory,
    devices: Devices,
}

/// How a session is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SessionSpec {
    options: SessionOptions,
    device: Device,
    /// The number of sessions on the device.
    instances: u16,
}

/// What identifies a model: its digest and how it is run.
type ModelKey = (String, RunSpec);

impl SessionSpec {
    fn for_run(run: &RunSpec, device: Device) -> SessionSpec {
        let options = SessionOptions {
            intra_threads: run.threads.max(1),
            arena: run.arena,
            graph_optimization: run.graph_optimization,
            device_memory: if device == Device::Cpu { 0 } else { run.device_memory },
        };
        let instances = if device == Device::Cpu { 0 } else { run.instances.max(1) };
        SessionSpec { options, device, instances }
    }
}

impl Engine {
    /// An engine that opens the ONNX Runtime library at `library` when it first needs it. One run uses at most as many threads as the pool has.
    pub fn new(
        library: Option<PathBuf>,
        threads: ModelThreads,
        memory: ModelMemory,
        devices: Devices,
    ) -> Self {
        let (loaded, sessions) = (Mutex::default(), Mutex::default());
        Self { library, threads, loaded, sessions, memory, devices }
    }

    /// The devices that models compute on.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The memory of the models.
    pub fn memory(&self) -> &ModelMemory {
        &self.memory
    }

    /// The model with that digest that is run like that, if it was loaded. It may be out of memory.
    pub fn find_loaded(&self, digest: &str, run: &RunSpec) -> Option<Arc<Model>> {
        self.lock_loaded().get(&(digest.to_owned(), run.clone())).and_then(Weak::upgrade)
    }

    /// Loads and warms a model, or returns the loaded one. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` with what is wrong with the version.
    pub fn load(
        &self,
        digest: &str,
        source: &Source<'_>,
        run: &RunSpec,
        urgency: LoadUrgency,
    ) -> Result<Arc<Model>> {
        if let Some(model) = self.find_loaded(digest, run) {
            return Ok(model);
        }
        let start = Instant::now();
        let model = match source {
            Source::Artifact(path) => self.load_artifact(digest, path, run, urgency)?,
            Source::Constant(values, signature) => {
                let constant = ResidentExecutable::fixed(Arc::new(Constant::new(values, signature)?));
                let mut model = self.model(Arc::new(constant), Device::Cpu, run)?;
                // Not measured: on a machine without a free core its runs would seem to take long.
                model.placement_policy = PlacementPolicy::fixed_inline("it is a constant, and does no work");
                model.probes().set_known_input(WarmupInputs::ZEROS, Duration::ZERO);
                Arc::new(model)
            }
        };
        model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
        Ok(self.register(digest, run, model))
    }

    /// The signature of a model file, which is opened as it is: not optimised, run or kept. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` if the file is no model, if an operator is unknown, or if no device of `run` is there; `overloaded` if there is no
    /// room.
    pub fn inspect(&self, path: &Path, run: &RunSpec) -> Result<Signature> {
        let library = self.library()?;
        let missing = |device: &Device| self.devices.driver(*device).err();
        // As in a load, one device is enough, and the last one says what is wrong.
        if let Some(Some(error)) = run.device.iter().map(missing).reduce(|one, other| one.and(other)) {
            return Err(error);
        }
        self.memory.check_room(path)?;
        let options =
            SessionOptions { graph_optimization: GraphOptimization::Off, ..SessionOptions::default() };
        Ok(Session::load(library, path, options)?.signature().clone())
    }

    /// Brings a model back into memory, unless it is there. Blocks.
    ///
    /// # Errors
    /// `model_load_failed`, and the same error for a while after a failure. `overloaded` if there is no room.
    pub fn reload(&self, model: &Arc<Model>, urgency: LoadUrgency) -> Result<LoadedModel> {
        let start = Instant::now();
        let executable = self.memory.reload(model.resident(), urgency, |executable| {
            let loaded = LoadedModel::new(model.clone(), executable.clone());
            let path = model.resident().path();
            let warmup =
                path.map_or(Ok(WarmupInputs::ZEROS), |path| WarmupInputs::beside(path, model.signature()))?;
            let _exclusive = executable.lock_exclusive();
            warm_up::warm_up_again(&loaded, warmup)?;
            model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
            Ok(())
        })?;
        Ok(LoadedModel::new(model.clone(), executable))
    }

    /// Notes which models were used, and frees the buffers of those that are out of memory.
    pub fn free_unused(&self) {
        self.memory.note_use();
        let models: Vec<_> = self.lock_loaded().values().filter_map(Weak::upgrade).collect();
        for model in models.iter().filter(|model| model.resident().state() == Residency::Cold) {
            model.free_buffers();
        }
    }

    /// The number of models by residency.
    pub fn residency_counts(&self) -> [(Residency, usize); 4] {
        let models: Vec<_> = self.lock_loaded().values().filter_map(Weak::upgrade).collect();
        Residency::ALL
            .map(|state| (state, models.iter().filter(|model| model.resident().state() == state).count()))
    }

    fn load_artifact(
        &self,
        digest: &str,
        path: &Path,
        run: &RunSpec,
        urgency: LoadUrgency,
    ) -> Result<Arc<Model>> {
        let load_with = |spec: SessionSpec| {
            let (resident, executable) = self.session(digest, path, spec, urgency)?;
            let model = Arc::new(self.model(resident, spec.device, run)?);
            if let Some(remark) = executable.remark() {
                model.load_notes.add(remark.to_owned());
            }
            Ok::<_, Error>(LoadedModel::new(model, executable))
        };
        let mut unproven = None;
        let mut failed = Vec::new();
        for device in &run.device {
            let spec = SessionSpec::for_run(run, *device);
            let attempt = load_with(spec).and_then(|model| Ok((warm_up_model(&model, path, spec)?, model)));
            match attempt {
                Ok((Some(run_ns), model)) => {
                    note_failures(&model, &failed);
                    let wide = self
                        .with_pool_threads(spec, run)
                        .filter(|_| warm_up::may_gain_from_threads(run_ns, path));
                    let wide = wide.and_then(|wide| load_if_faster(run_ns, path, wide, load_with));
                    return Ok(wide.unwrap_or(model).model().clone());
                }
                // It is not known whether it runs there. Another device may tell.
                Ok((None, model)) => unproven = unproven.or(Some(model)),
                // Neither lack of room, which ends, nor a cancelled load is the fault of the device.
                Err(error) if error.retry_after.is_some() || error.code == Code::Cancelled => {
                    return Err(error);
                }
                Err(error) => failed.push((device, error)),
            }
        }
        let last_failure = || {
            failed
                .pop()
                .map_or_else(|| Error::new(Code::Internal, "a version without a device"), |(_, error)| error)
        };
        let model = unproven.ok_or_else(last_failure)?;
        note_failures(&model, &failed);
        Ok(model.model().clone())
    }

    /// The same session with all pool threads within a run, unless the number of threads is fixed.
    fn with_pool_threads(&self, spec: SessionSpec, run: &RunSpec) -> Option<SessionSpec> {
        let cores = u16::try_from(self.threads.pool_threads).unwrap_or(u16::MAX);
        let fixed = run.threads > 0 || spec.device != Device::Cpu;
        let options = SessionOptions { intra_threads: cores, ..spec.options };
        (!fixed && cores > 1).then_some(SessionSpec { options, ..spec })
    }

    /// The executable of a digest, held: the one that is shared, or a new one.
    fn session(
        &self,
        digest: &str,
        path: &Path,
        spec: SessionSpec,
        urgency: LoadUrgency,
    ) -> Result<(Arc<ResidentExecutable>, Arc<dyn Executable>)> {
        let key = (digest.to_owned(), spec);
        let shared = || lock(&self.sessions).get(&key).and_then(Weak::upgrade);
        if let Some(resident) = shared() {
            let executable = self.memory.reload(&resident, urgency, |_| Ok(()))?;
            return Ok((resident, executable));
        }
        let (library, file) = (self.library()?, path.to_owned());
        let driver = self.devices.driver(spec.device)?;
        let make = Box::new(move || -> Result<Arc<dyn Executable>> {
            let SessionSpec { options, instances, .. } = spec;
            Ok(match &driver {
                None => Arc::new(Session::load(library, &file, options)?),
                Some(driver) => {
                    Arc::new(DeviceSessions::load(library, driver, &file, options, usize::from(instances))?)
                }
            })
        });
        let (resident, executable) =
            self.memory.load_first(ExecutableSource { path: path.to_owned(), make }, urgency)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.strong_count() > 0);
        // If two threads made it at once, the first one is shared, unless it is gone.
        if let Some(first) = sessions.get(&key).and_then(Weak::upgrade)
            && let Some(executable) = first.hold()
        {
            return Ok((first, executable));
        }
        sessions.insert(key, Arc::downgrade(&resident));
        Ok((resident, executable))
    }

    fn model(&self, resident: Arc<ResidentExecutable>, device: Device, run: &RunSpec) -> Result<Model> {
        Model::new(resident, device, run, self.library()?, &self.threads)
    }

    /// Registers any executable under a digest, without a warm-up. It starts in the pool, and is taken to run on synthetic inputs.
    ///
    /// # Errors
    /// `model_load_failed` if there is no ONNX Runtime library to make its buffers with, or if it cannot be run like that.
    pub fn adopt(&self, digest: &str, executable: Box<dyn Executable>, run: &RunSpec) -> Result<Arc<Model>> {
        let resident = Arc::new(ResidentExecutable::fixed(Arc::from(executable)));
        let model = self.model(resident, Device::Cpu, run)?;
        model.probes().set_known_input(WarmupInputs::ZEROS, Duration::ZERO);
        Ok(self.register(digest, run, Arc::new(model)))
    }

    /// Registers an executable that `make` makes from a file, without a warm-up. It may leave memory and come back.
    ///
    /// # Errors
    /// As [`Engine::adopt`] and as `make`.
    pub fn adopt_reloadable(
        &self,
        digest: &str,
        path: &Path,
        make: impl Fn() -> Result<Arc<dyn Executable>> + Send + Sync + 'static,
        run: &RunSpec,
    ) -> Result<Arc<Model>> {
        let source = ExecutableSource { path: path.to_owned(), make: Box::new(make) };
        let (resident, _held) = self.memory.load_first(source, LoadUrgency::Ordinary)?;
        let model = self.model(resident, Device::Cpu, run)?;
        model.probes().set_known_input(WarmupInputs::ZEROS, Duration::ZERO);
        Ok(self.register(digest, run, Arc::new(model)))
    }

    /// The number of models that are known, in memory or not.
    pub fn count(&self) -> usize {
        self.lock_loaded().values().filter(|model| model.strong_count() > 0).count()
    }

    fn library(&self) -> Result<&'static Library> {
        let path = self.library.as_deref().ok_or_else(|| {
            Error::new(
                Code::ModelLoadFailed,
                "no ONNX Runtime is installed; pip install \"headgate[cpu]\" brings it",
            )
        })?;
        Library::open(path)
    }

    /// Keeps a weak reference. If two threads loaded the same model at once, the first one stays.
    fn register(&self, digest: &str, run: &RunSpec, model: Arc<Model>) -> Arc<Model> {
        let mut table = self.lock_loaded();
        table.retain(|_, model| model.strong_count() > 0);
        let key = (digest.to_owned(), run.clone());
        match table.get(&key).and_then(Weak::upgrade) {
            Some(first) => first,
            None => {
                table.insert(key, Arc::downgrade(&model));
                model
            }
        }
    }

    fn lock_loaded(&self) -> std::sync::MutexGuard<'_, HashMap<ModelKey, Weak<Model>>> {
        lock(&self.loaded)
    }
}

/// Notes on which devices a model could not be made.
fn note_failures(model: &LoadedModel, failed: &[(&Device, Error)]) {
    failed.iter().for_each(|(device, error)| model.load_notes.add(format!("not on {device}: {error}")));
}

/// The model with that session, if it is worth its cores; a run with one thread takes `run_ns`. A trial that fails, for lack of memory for
/// example, changes nothing.
fn load_if_faster(
    run_ns: u64,
    path: &Path,
    wide: SessionSpec,
    load_with: impl Fn(SessionSpec) -> Result<LoadedModel>,
) -> Option<LoadedModel> {
    let model = load_with(wide).ok()?;
    let wide_ns = warm_up_model(&model, path, wide).ok()??;
    warm_up::is_worth_threads(run_ns, wide_ns).then_some(model)
}

/// Warms a model up. Returns the median time of its runs; `None` if it runs on no synthetic inputs.
fn warm_up_model(model: &LoadedModel, path: &Path, spec: SessionSpec) -> Result<Option<u64>> {
    let _exclusive = model.executable().get().lock_exclusive();
    let exact = spec.device == Device::Cpu && spec.options.intra_threads == 1;
    warm_up::warm_up(model, WarmupInputs::beside(path, model.signature())?, exact)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
