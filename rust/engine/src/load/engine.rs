//! Loading: from a file to a model whose first request is not its first run.
//!
//! A model is loaded once for each digest and lives as long as somebody holds it. Everything here blocks; it runs on the
//! server's loader threads, never on IO or pool threads. Next: `warm`.

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
use crate::compute::{Constant, Devices, Executable, Sessions};
use crate::memory::{Memory, Need, Recipe, Resident, State};
use crate::models::{Model, Placement, Threads, Warm};
use crate::warmup::Warmup;

/// What a version is made of.
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
    threads: Threads,
    loaded: Mutex<HashMap<Key, Weak<Model>>>,
    /// What computes, by digest and how it was made: models that are run differently share it.
    sessions: Mutex<HashMap<(String, How), Weak<Resident>>>,
    memory: Memory,
    devices: Devices,
}

/// How what computes is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct How {
    options: SessionOptions,
    device: Device,
    /// Sessions on the device.
    instances: u16,
}

/// What makes two models the same: what they are and how they are run.
type Key = (String, RunSpec);

impl How {
    fn of(run: &RunSpec, device: Device) -> How {
        let options = SessionOptions {
            intra_threads: run.threads.max(1),
            arena: run.arena,
            graph_optimization: run.graph_optimization,
            device_memory: if device == Device::Cpu { 0 } else { run.device_memory },
        };
        let instances = if device == Device::Cpu { 0 } else { run.instances.max(1) };
        How { options, device, instances }
    }
}

impl Engine {
    /// An engine that opens the ONNX Runtime library at `library` when it first needs it. One run uses as many threads as there
    /// are in the pool at most.
    pub fn new(library: Option<PathBuf>, threads: Threads, memory: Memory, devices: Devices) -> Self {
        let (loaded, sessions) = (Mutex::default(), Mutex::default());
        Self { library, threads, loaded, sessions, memory, devices }
    }

    /// The devices that models compute on.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The memory of the models.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The model of a digest that is run like that, if it was loaded; it may be out of memory by now.
    pub fn loaded(&self, digest: &str, run: &RunSpec) -> Option<Arc<Model>> {
        self.table().get(&(digest.to_owned(), run.clone())).and_then(Weak::upgrade)
    }

    /// Loads and warms a model, or returns the loaded one with that digest that is run like that. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` saying what is wrong with the version.
    pub fn load(&self, digest: &str, source: &Source<'_>, run: &RunSpec, need: Need) -> Result<Arc<Model>> {
        if let Some(model) = self.loaded(digest, run) {
            return Ok(model);
        }
        let start = Instant::now();
        let model = match source {
            Source::Artifact(path) => self.load_artifact(digest, path, run, need)?,
            Source::Constant(values, signature) => {
                let constant = Resident::fixed(Arc::new(Constant::new(values, signature)?));
                let mut model = self.model(Arc::new(constant), Device::Cpu, run)?;
                // Not by measuring: on a machine without a free core its runs seem to take long.
                model.placement = Placement::inline("it is a constant, and does no work");
                model.probes().keep(Warmup::ZEROS, Duration::ZERO);
                Arc::new(model)
            }
        };
        model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
        Ok(self.remember(digest, run, model))
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
    pub fn bring(&self, model: &Arc<Model>, need: Need) -> Result<Warm> {
        let start = Instant::now();
        let executable = self.memory.bring(model.resident(), need, |executable| {
            let warm = Warm::new(model.clone(), executable.clone());
            let path = model.resident().path();
            let warmup = path.map_or(Ok(Warmup::ZEROS), |path| Warmup::beside(path, model.signature()))?;
            let _alone = executable.alone();
            warm_up::again(&warm, warmup)?;
            model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
            Ok(())
        })?;
        Ok(Warm::new(model.clone(), executable))
    }

    /// Notes who was used, and frees the buffers of models that are out of memory.
    pub fn tidy(&self) {
        self.memory.note();
        let models: Vec<_> = self.table().values().filter_map(Weak::upgrade).collect();
        for model in models.iter().filter(|model| model.resident().state() == State::Cold) {
            model.free_buffers();
        }
    }

    /// Where the models are, and how many are there.
    pub fn states(&self) -> [(State, usize); 4] {
        let models: Vec<_> = self.table().values().filter_map(Weak::upgrade).collect();
        State::ALL
            .map(|state| (state, models.iter().filter(|model| model.resident().state() == state).count()))
    }

    fn load_artifact(&self, digest: &str, path: &Path, run: &RunSpec, need: Need) -> Result<Arc<Model>> {
        let made = |how: How| {
            let (resident, executable) = self.session(digest, path, how, need)?;
            let model = Arc::new(self.model(resident, how.device, run)?);
            if let Some(remark) = executable.remark() {
                model.notes.add(remark.to_owned());
            }
            Ok::<_, Error>(Warm::new(model, executable))
        };
        let mut unproven = None;
        let mut failed = Vec::new();
        for device in &run.device {
            let how = How::of(run, *device);
            let tried = made(how).and_then(|model| Ok((try_out(&model, path, how)?, model)));
            match tried {
                Ok((Some(run_ns), model)) => {
                    note_failures(&model, &failed);
                    let wide = self.wide(how, run).filter(|_| warm_up::may_gain_from_threads(run_ns, path));
                    let wide = wide.and_then(|wide| faster(run_ns, path, wide, made));
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
    fn wide(&self, how: How, run: &RunSpec) -> Option<How> {
        let cores = u16::try_from(self.threads.pool).unwrap_or(u16::MAX);
        let fixed = run.threads > 0 || how.device != Device::Cpu;
        let options = SessionOptions { intra_threads: cores, ..how.options };
        (!fixed && cores > 1).then_some(How { options, ..how })
    }

    /// The session of a digest, made unless there is one, and held.
    fn session(
        &self,
        digest: &str,
        path: &Path,
        how: How,
        need: Need,
    ) -> Result<(Arc<Resident>, Arc<dyn Executable>)> {
        let key = (digest.to_owned(), how);
        let present = || lock(&self.sessions).get(&key).and_then(Weak::upgrade);
        if let Some(resident) = present() {
            let executable = self.memory.bring(&resident, need, |_| Ok(()))?;
            return Ok((resident, executable));
        }
        let (library, file) = (self.library()?, path.to_owned());
        let driver = self.devices.driver(how.device)?;
        let make = Box::new(move || -> Result<Arc<dyn Executable>> {
            let How { options, instances, .. } = how;
            Ok(match &driver {
                None => Arc::new(Session::load(library, &file, options)?),
                Some(driver) => {
                    Arc::new(Sessions::load(library, driver, &file, options, usize::from(instances))?)
                }
            })
        });
        let made = self.memory.first(Recipe { path: path.to_owned(), make }, need)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.strong_count() > 0);
        // When two threads made it at once, the first one is shared, unless it is gone already.
        if let Some(first) = sessions.get(&key).and_then(Weak::upgrade)
            && let Some(executable) = first.hold()
        {
            return Ok((first, executable));
        }
        sessions.insert(key, Arc::downgrade(&made.0));
        Ok(made)
    }

    fn model(&self, resident: Arc<Resident>, device: Device, run: &RunSpec) -> Result<Model> {
        Model::new(resident, device, run, self.library()?, &self.threads)
    }

    /// Puts an executable of any kind under a digest, unwarmed: it starts in the pool, and is taken to run on made-up inputs.
    ///
    /// # Errors
    /// `model_load_failed` when there is no ONNX Runtime library to make its buffers with, or it cannot be run like that.
    pub fn adopt(&self, digest: &str, executable: Box<dyn Executable>, run: &RunSpec) -> Result<Arc<Model>> {
        let resident = Arc::new(Resident::fixed(Arc::from(executable)));
        let model = self.model(resident, Device::Cpu, run)?;
        model.probes().keep(Warmup::ZEROS, Duration::ZERO);
        Ok(self.remember(digest, run, Arc::new(model)))
    }

    /// Puts what is made from a file in some other way than by the runtime under a digest, unwarmed: it may leave memory and
    /// come back.
    ///
    /// # Errors
    /// As [`Engine::adopt`], and as `make`.
    pub fn adopt_made(
        &self,
        digest: &str,
        path: &Path,
        make: impl Fn() -> Result<Arc<dyn Executable>> + Send + Sync + 'static,
        run: &RunSpec,
    ) -> Result<Arc<Model>> {
        let recipe = Recipe { path: path.to_owned(), make: Box::new(make) };
        let (resident, _held) = self.memory.first(recipe, Need::Ordinary)?;
        let model = self.model(resident, Device::Cpu, run)?;
        model.probes().keep(Warmup::ZEROS, Duration::ZERO);
        Ok(self.remember(digest, run, Arc::new(model)))
    }

    /// The number of models that are known, in memory or not.
    pub fn count(&self) -> usize {
        self.table().values().filter(|model| model.strong_count() > 0).count()
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
    fn remember(&self, digest: &str, run: &RunSpec, model: Arc<Model>) -> Arc<Model> {
        let mut table = self.table();
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

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Weak<Model>>> {
        lock(&self.loaded)
    }
}

/// Says of a model which devices it could not be made for.
fn note_failures(model: &Warm, failed: &[(&Device, Error)]) {
    failed.iter().for_each(|(device, error)| model.notes.add(format!("not on {device}: {error}")));
}

/// The model that is made like that, if it is worth its cores: one thread took `run_ns`. A trial that fails, for want of memory say, leaves
/// what there is.
fn faster(run_ns: u64, path: &Path, wide: How, made: impl Fn(How) -> Result<Warm>) -> Option<Warm> {
    let model = made(wide).ok()?;
    let wide_ns = try_out(&model, path, wide).ok()??;
    warm_up::gains(run_ns, wide_ns).then_some(model)
}

/// Warms a model; the median of its runs, if it takes what is made up.
fn try_out(model: &Warm, path: &Path, how: How) -> Result<Option<u64>> {
    let _alone = model.executable().executable().alone();
    let exact = how.device == Device::Cpu && how.options.intra_threads == 1;
    warm_up::up(model, Warmup::beside(path, model.signature())?, exact)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
