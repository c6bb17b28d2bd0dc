//! Loading: from a file to a model whose first request is not its first run.
//!
//! A model is loaded once for each digest and lives as long as somebody holds it. Everything here blocks; it runs on the
//! server's loader threads, never on IO or pool threads. Next: `loaded`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{Device, GraphOptimization, RunSpec};
use headgate_core::tensor::Signature;
use headgate_runtime::{Library, Session, SessionOptions};
use serde_json::Value;

use super::warm_up;
use crate::compute::{Constant, DeviceSessions, Devices, Executable};
use crate::memory::{ExecutableSource, LoadUrgency, ModelMemory, Residency, ResidentExecutable};
use crate::models::{LoadedModel, Model, ModelThreads, PlacementPolicy};
use crate::warmup::WarmupInputs;

/// What a version is load_with of.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// A model file.
    Artifact(&'a Path),
    /// Constant outputs by name, under another version's signature.
    Constant(&'a BTreeMap<String, Value>, &'a Signature),
}

/// Loads models and knows those that are loaded.
pub struct Engine {
    library: Option<PathBuf>,
    threads: ModelThreads,
    loaded: Mutex<HashMap<ModelKey, Weak<Model>>>,
    /// What computes, by digest and how it was load_with: models that are run differently share it.
    sessions: Mutex<HashMap<(String, SessionSpec), Weak<ResidentExecutable>>>,
    memory: ModelMemory,
    devices: Devices,
}

/// SessionSpec what computes is load_with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SessionSpec {
    options: SessionOptions,
    device: Device,
    /// DeviceSessions on the device.
    instances: u16,
}

/// What makes two models the same: what they are and how they are run.
type ModelKey = (String, RunSpec);

impl SessionSpec {
    fn of(run: &RunSpec, device: Device) -> SessionSpec {
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
    /// An engine that opens the ONNX Runtime library at `library` when it first needs it. One run uses as many threads as there
    /// are in the pool at most.
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

    /// The model of a digest that is run like that, if it was loaded; it may be out of memory by now.
    pub fn find_loaded(&self, digest: &str, run: &RunSpec) -> Option<Arc<Model>> {
        self.lock_loaded().get(&(digest.to_owned(), run.clone())).and_then(Weak::upgrade)
    }

    /// Loads and warms a model, or returns the loaded one with that digest that is run like that. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` saying what is wrong with the version.
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
                // Not by measuring: on a machine without a free core its runs seem to take long.
                model.placement_policy = PlacementPolicy::fixed_inline("it is a constant, and does no work");
                model.probes().set_known_input(WarmupInputs::ZEROS, Duration::ZERO);
                Arc::new(model)
            }
        };
        model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
        Ok(self.register(digest, run, model))
    }

    /// The signature of a model's file, which is opened as it is: not optimised, run or kept. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` for what is no model or has operators that nobody knows, and if no device of `run` is there;
    /// `overloaded` if there is no room.
    pub fn inspect(&self, path: &Path, run: &RunSpec) -> Result<Signature> {
        let library = self.library()?;
        let missing = |device: &Device| self.devices.driver(*device).err();
        // As in a load, one device of them is enough, and the last one says what is wrong.
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
    /// `model_load_failed`, and the same for a while after a failure; `overloaded` when there is no room.
    pub fn reload(&self, model: &Arc<Model>, urgency: LoadUrgency) -> Result<LoadedModel> {
        let start = Instant::now();
        let executable = self.memory.reload(model.resident(), urgency, |executable| {
            let loaded = LoadedModel::new(model.clone(), executable.clone());
            let path = model.resident().path();
            let warmup =
                path.map_or(Ok(WarmupInputs::ZEROS), |path| WarmupInputs::beside(path, model.signature()))?;
            let _alone = executable.lock_exclusive();
            warm_up::warm_up_again(&loaded, warmup)?;
            model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
            Ok(())
        })?;
        Ok(LoadedModel::new(model.clone(), executable))
    }

    /// Notes who was used, and frees the buffers of models that are out of memory.
    pub fn free_unused(&self) {
        self.memory.note_use();
        let models: Vec<_> = self.lock_loaded().values().filter_map(Weak::upgrade).collect();
        for model in models.iter().filter(|model| model.resident().state() == Residency::Cold) {
            model.free_buffers();
        }
    }

    /// Where the models are, and how many are there.
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
            let spec = SessionSpec::of(run, *device);
            let tried = load_with(spec).and_then(|model| Ok((warm_up_model(&model, path, spec)?, model)));
            match tried {
                Ok((Some(run_ns), model)) => {
                    note_failures(&model, &failed);
                    let wide = self
                        .with_pool_threads(spec, run)
                        .filter(|_| warm_up::may_gain_from_threads(run_ns, path));
                    let wide = wide.and_then(|wide| load_if_faster(run_ns, path, wide, load_with));
                    return Ok(wide.unwrap_or(model).model().clone());
                }
                // Nobody knows whether it runs there: another device may tell.
                Ok((None, model)) => unproven = unproven.or(Some(model)),
                // Want of room for models, which is given when there is some, is no fault of the device; nor is a load that was
                // cancelled.
                Err(error) if error.retry_after.is_some() || error.code == Code::Cancelled => {
                    return Err(error);
                }
                Err(error) => failed.push((device, error)),
            }
        }
        let why = || {
            failed
                .pop()
                .map_or_else(|| Error::new(Code::Internal, "a version without a device"), |(_, error)| error)
        };
        let model = unproven.ok_or_else(why)?;
        note_failures(&model, &failed);
        Ok(model.model().clone())
    }

    /// The same with all pool threads within a run, if that is not fixed.
    fn with_pool_threads(&self, spec: SessionSpec, run: &RunSpec) -> Option<SessionSpec> {
        let cores = u16::try_from(self.threads.pool_threads).unwrap_or(u16::MAX);
        let fixed = run.threads > 0 || spec.device != Device::Cpu;
        let options = SessionOptions { intra_threads: cores, ..spec.options };
        (!fixed && cores > 1).then_some(SessionSpec { options, ..spec })
    }

    /// The session of a digest, load_with unless there is one, and held.
    fn session(
        &self,
        digest: &str,
        path: &Path,
        spec: SessionSpec,
        urgency: LoadUrgency,
    ) -> Result<(Arc<ResidentExecutable>, Arc<dyn Executable>)> {
        let key = (digest.to_owned(), spec);
        let present = || lock(&self.sessions).get(&key).and_then(Weak::upgrade);
        if let Some(resident) = present() {
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
        let load_with = self.memory.load_first(ExecutableSource { path: path.to_owned(), make }, urgency)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.strong_count() > 0);
        // When two threads load_with it at once, the first one is shared, unless it is gone already.
        if let Some(first) = sessions.get(&key).and_then(Weak::upgrade)
            && let Some(executable) = first.hold()
        {
            return Ok((first, executable));
        }
        sessions.insert(key, Arc::downgrade(&load_with.0));
        Ok(load_with)
    }

    fn model(&self, resident: Arc<ResidentExecutable>, device: Device, run: &RunSpec) -> Result<Model> {
        Model::new(resident, device, run, self.library()?, &self.threads)
    }

    /// Puts an executable of any kind under a digest, unwarmed: it starts in the pool, and is taken to run on load_with-up inputs.
    ///
    /// # Errors
    /// `model_load_failed` when there is no ONNX Runtime library to make its buffers with, or it cannot be run like that.
    pub fn adopt(&self, digest: &str, executable: Box<dyn Executable>, run: &RunSpec) -> Result<Arc<Model>> {
        let resident = Arc::new(ResidentExecutable::fixed(Arc::from(executable)));
        let model = self.model(resident, Device::Cpu, run)?;
        model.probes().set_known_input(WarmupInputs::ZEROS, Duration::ZERO);
        Ok(self.register(digest, run, Arc::new(model)))
    }

    /// Puts what is load_with from a file in some other way than by the runtime under a digest, unwarmed: it may leave memory and
    /// come back.
    ///
    /// # Errors
    /// As [`Engine::adopt`], and as `make`.
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

    /// Keeps a weak reference; when two threads loaded the same at once, the first one wins.
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

/// Says of a model which devices it could not be load_with for.
fn note_failures(model: &LoadedModel, failed: &[(&Device, Error)]) {
    failed.iter().for_each(|(device, error)| model.load_notes.add(format!("not on {device}: {error}")));
}

/// The model that is load_with like that, if it is worth its cores: one thread took `run_ns`. A trial that fails, for want of memory say, leaves
/// what there is.
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

/// Warms a model; the median of its runs, if it takes what is load_with up.
fn warm_up_model(model: &LoadedModel, path: &Path, spec: SessionSpec) -> Result<Option<u64>> {
    let _alone = model.executable().executable().lock_exclusive();
    let exact = spec.device == Device::Cpu && spec.options.intra_threads == 1;
    warm_up::warm_up(model, WarmupInputs::beside(path, model.signature())?, exact)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
