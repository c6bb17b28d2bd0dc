//! Loading and warming: from a file to a model whose first request is not its first run.
//!
//! A model is loaded once for each digest and lives as long as somebody holds it. Everything here blocks; it runs on the
//! server's loader threads, never on IO or pool threads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature};
use headgate_runtime::{Library, Session, SessionOptions};
use serde_json::Value;

use crate::constant::Constant;
use crate::histogram::{Counts, Histogram};
use crate::model::{Executable, Lease, Model};
use crate::place::MIN_RUNS;

/// Runs that are thrown away before the measuring begins: caches, lazily made kernels.
const COLD_RUNS: u64 = 3;
/// A version whose first warm run takes this long is not worth measuring further: it belongs in the pool.
const LONG_RUN_NS: u64 = 20_000_000;

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
    threads: usize,
    loaded: Mutex<HashMap<String, Weak<Model>>>,
}

impl Engine {
    /// An engine that opens the ONNX Runtime library at `library` when it first needs it; `threads` is the number of IO
    /// threads.
    pub fn new(library: Option<PathBuf>, threads: usize) -> Self {
        Self { library, threads, loaded: Mutex::default() }
    }

    /// The model of a digest, if it is loaded.
    pub fn loaded(&self, digest: &str) -> Option<Arc<Model>> {
        self.table().get(digest).and_then(Weak::upgrade)
    }

    /// Loads and warms a model, or returns the loaded one with that digest. Blocks.
    ///
    /// # Errors
    /// `model_load_failed` saying what is wrong with the version.
    pub fn load(&self, digest: &str, source: &Source<'_>) -> Result<Arc<Model>> {
        if let Some(model) = self.loaded(digest) {
            return Ok(model);
        }
        let library = self.library()?;
        let start = Instant::now();
        let model = match source {
            Source::Artifact(path) => {
                let session = Session::load(library, path, SessionOptions::default())?;
                let model = Arc::new(Model::new(Box::new(session), library, self.threads));
                warm(&model);
                model
            }
            Source::Constant(values, signature) => {
                let constant = Constant::new(values, signature)?;
                let model = Model::new(Box::new(constant), library, self.threads);
                model.placement.pin_inline();
                Arc::new(model)
            }
        };
        model.load_ns.store(start.elapsed().as_nanos() as u64, Relaxed);
        Ok(self.remember(digest, model))
    }

    /// Puts an executable of any kind under a digest, unwarmed: it starts in the pool.
    ///
    /// # Errors
    /// `model_load_failed` when there is no ONNX Runtime library to make its buffers with.
    pub fn adopt(&self, digest: &str, executable: Box<dyn Executable>) -> Result<Arc<Model>> {
        let model = Arc::new(Model::new(executable, self.library()?, self.threads));
        Ok(self.remember(digest, model))
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

    /// Keeps a weak reference; when two threads loaded the same digest at once, the first one wins.
    fn remember(&self, digest: &str, model: Arc<Model>) -> Arc<Model> {
        let mut table = self.table();
        table.retain(|_, model| model.strong_count() > 0);
        match table.get(digest).and_then(Weak::upgrade) {
            Some(first) => first,
            None => {
                table.insert(digest.to_owned(), Arc::downgrade(&model));
                model
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Model>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a fresh model on zeros until its run time is known, and places it.
///
/// Zeros may be inputs that the model refuses (an index, a divisor): then it is not measured, and starts in the pool.
fn warm(model: &Arc<Model>) {
    let mut lease = Lease::take(model, 0);
    for index in 0..model.signature().inputs.len() {
        let spec = &model.signature().inputs[index];
        let dims: Vec<i64> = spec.shape.iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
        let tensor = lease.binding_mut().input_mut(index);
        // A shape that cannot be made up is one that cannot be measured.
        if Shape::new(&dims).and_then(|shape| tensor.reshape(&shape)).is_err() {
            return;
        }
        if spec.datatype != DataType::Bytes
            && let Some(bytes) = tensor.bytes_mut()
        {
            bytes.fill(0);
        }
    }
    let histogram = Histogram::default();
    for run in 0..COLD_RUNS + MIN_RUNS {
        let start = Instant::now();
        if lease.run().is_err() {
            return;
        }
        let ns = start.elapsed().as_nanos() as u64;
        if run >= COLD_RUNS {
            histogram.record(ns);
        } else if ns > LONG_RUN_NS {
            return;
        }
    }
    let mut counts = Counts::default();
    histogram.add_to(&mut counts);
    model.placement.decide(&counts, 0);
}
