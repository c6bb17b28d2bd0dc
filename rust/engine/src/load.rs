//! Loading: from a file to a model whose first request is not its first run.
//!
//! A model is loaded once for each digest and lives as long as somebody holds it. Everything here blocks; it runs on the
//! server's loader threads, never on IO or pool threads. Next: `warm`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::RunSpec;
use headgate_core::tensor::Signature;
use headgate_runtime::{Library, Session, SessionOptions};
use serde_json::Value;

use crate::constant::Constant;
use crate::model::{Executable, Model, Threads};
use crate::warm;
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
    sessions: Mutex<HashMap<(String, SessionOptions), Weak<dyn Executable>>>,
}

/// What makes two models the same: what they are and how they are run.
type Key = (String, RunSpec);

impl Engine {
    /// An engine that opens the ONNX Runtime library at `library` when it first needs it. One run uses as many threads as there
    /// are in the pool at most.
    pub fn new(library: Option<PathBuf>, threads: Threads) -> Self {
        Self { library, threads, loaded: Mutex::default(), sessions: Mutex::default() }
    }

    /// The model of a digest that is run like that, if it is loaded.
    pub fn loaded(&self, digest: &str, run: &RunSpec) -> Option<Arc<Model>> {
        self.table().get(&(digest.to_owned(), run.clone())).and_then(Weak::upgrade)
    }

    /// Loads and warms a model, or returns the loaded one with that digest that is run like that. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` saying what is wrong with the version.
    pub fn load(&self, digest: &str, source: &Source<'_>, run: &RunSpec) -> Result<Arc<Model>> {
        if let Some(model) = self.loaded(digest, run) {
            return Ok(model);
        }
        let library = self.library()?;
        let start = Instant::now();
        let model = match source {
            Source::Artifact(path) => self.load_artifact(library, digest, path, run)?,
            Source::Constant(values, signature) => {
                let constant = Constant::new(values, signature)?;
                let model = Model::new(Arc::new(constant), run, library, self.threads)?;
                model.placement.pin_inline();
                model
            }
        };
        model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
        Ok(self.remember(digest, run, Arc::new(model)))
    }

    fn load_artifact(
        &self,
        library: &'static Library,
        digest: &str,
        path: &Path,
        run: &RunSpec,
    ) -> Result<Model> {
        let options = |threads: u16| SessionOptions {
            intra_threads: threads,
            arena: run.arena,
            graph_optimization: run.graph_optimization,
        };
        let made = |threads: u16| {
            let session = self.session(library, digest, path, options(threads))?;
            Model::new(session, run, library, self.threads)
        };
        let model = made(run.threads.max(1))?;
        let warmup = Warmup::beside(path, model.signature())?;
        let alone = warm::up(&model, &warmup)?;
        let cores = u16::try_from(self.threads.pool).unwrap_or(u16::MAX);
        if run.threads > 0 || cores < 2 || !warm::may_gain_from_threads(alone, path) {
            return Ok(model);
        }
        let wide = made(cores)?;
        let together = warm::up(&wide, &warmup)?;
        Ok(if warm::gains(alone, together) { wide } else { model })
    }

    /// The session of a digest, made unless there is one.
    fn session(
        &self,
        library: &'static Library,
        digest: &str,
        path: &Path,
        options: SessionOptions,
    ) -> Result<Arc<dyn Executable>> {
        let key = (digest.to_owned(), options);
        let present = || lock(&self.sessions).get(&key).and_then(Weak::upgrade);
        if let Some(session) = present() {
            return Ok(session);
        }
        let made: Arc<dyn Executable> = Arc::new(Session::load(library, path, options)?);
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.strong_count() > 0);
        // When two threads made it at once, the first one is shared.
        if let Some(first) = sessions.get(&key).and_then(Weak::upgrade) {
            return Ok(first);
        }
        sessions.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    /// Puts an executable of any kind under a digest, unwarmed: it starts in the pool.
    ///
    /// # Errors
    /// `model_load_failed` when there is no ONNX Runtime library to make its buffers with, or it cannot be run like that.
    pub fn adopt(&self, digest: &str, executable: Box<dyn Executable>, run: &RunSpec) -> Result<Arc<Model>> {
        let model = Model::new(Arc::from(executable), run, self.library()?, self.threads)?;
        Ok(self.remember(digest, run, Arc::new(model)))
    }

    /// The number of models in memory.
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
