//! The registry of sketches: one set for each version of an endpoint, as long as a snapshot has it.
//!
//! Not here: the sketching of requests (`after::sketching`), bins and distances (`headgate-sketch`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::{Signature, TensorSpec};
use headgate_sketch::budget::{BudgetShare, SketchBudget};
use headgate_sketch::distance::Tolerance;
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::report::Report;
use headgate_sketch::shard::{ShardCollector, ShardOpener};
use headgate_sketch::typed_slice::ElementType;
use headgate_sketch::window::{SlidingWindow, TimeSpan, WindowSum};
use headgate_sketch::{Baseline, Direction};
use serde_json::Value;

use crate::config::Config;
use crate::serving::sketch_cost;

/// The windows of all versions together have one part in so many of the memory for sketches. Each version has the same share of it.
const WINDOW_SHARE: usize = 2;

/// The sketches of one version, as its requests use them.
#[derive(Debug)]
pub struct VersionSketch {
    /// A unique number, by which an IO thread finds its writer.
    pub id: u64,
    /// Opens the writer of an IO thread.
    pub opener: ShardOpener,
    /// The cost of sketching one value, in nanoseconds.
    pub value_ns: f64,
}

/// The sketches of all versions.
///
/// No lock is held while a file is read, a plan is compiled or a report is computed, because the publisher and the background thread need
/// the same locks.
pub struct SketchRegistry {
    enabled: bool,
    value_ns: f64,
    budget: Arc<SketchBudget>,
    next: AtomicU64,
    baselines: Mutex<HashMap<String, CachedBaseline>>,
    versions: Mutex<HashMap<u64, Arc<VersionEntry>>>,
}

/// A baseline that was read. Its memory counts as long as a version uses it.
struct CachedBaseline {
    baseline: Weak<Baseline>,
    _memory: BudgetShare,
}

/// The sketches of a version.
struct VersionEntry {
    /// Two states of a version with equal identities share their sketches.
    identity: SketchIdentity,
    sketch: Arc<VersionSketch>,
    counts: Mutex<CollectedCounts>,
    /// The memory of the plan.
    _plan: BudgetShare,
}

/// The counts that were collected from the threads.
struct CollectedCounts {
    collector: ShardCollector,
    window: SlidingWindow,
}

#[derive(Clone, Debug, PartialEq)]
struct SketchIdentity {
    endpoint: String,
    version: String,
    digest: String,
    baseline: Option<String>,
    columns: std::collections::BTreeMap<String, Vec<String>>,
}

impl SketchRegistry {
    /// An empty registry with the memory limit of the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            enabled: config.sketches,
            value_ns: if config.sketches { sketch_cost::value_ns() } else { 0.0 },
            budget: SketchBudget::new(config.sketch_memory_bytes),
            next: AtomicU64::new(0),
            baselines: Mutex::default(),
            versions: Mutex::default(),
        }
    }

    /// The baseline that a spec names, which is read once. `None` if the spec names none, or if sketches are off.
    ///
    /// # Errors
    /// `policy_invalid` if the file cannot be read or is no baseline.
    pub fn baseline(&self, spec: &EndpointSpec) -> Result<Option<Arc<Baseline>>> {
        let Some(path) = spec.baseline.as_ref().filter(|_| self.enabled) else { return Ok(None) };
        if let Some(baseline) = self.cached_baseline(path) {
            return Ok(Some(baseline));
        }
        let unusable = |reason: &dyn std::fmt::Display| {
            Error::new(Code::PolicyInvalid, format!("endpoint {:?}: baseline {path:?}: {reason}", spec.name))
        };
        let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
        let read = Arc::new(Baseline::from_json(&bytes).map_err(|error| unusable(&error))?);
        // Another loader thread may have read it meanwhile.
        if let Some(baseline) = self.cached_baseline(path) {
            return Ok(Some(baseline));
        }
        let memory = self.reserve(read.bytes());
        let known = CachedBaseline { baseline: Arc::downgrade(&read), _memory: memory };
        self.baselines().insert(path.clone(), known);
        Ok(Some(read))
    }

    fn cached_baseline(&self, path: &str) -> Option<Arc<Baseline>> {
        self.baselines().get(path)?.baseline.upgrade()
    }

    /// Reserves memory for what an operator publishes. It is never refused, and leaves less for the sketches of traffic.
    fn reserve(&self, bytes: usize) -> BudgetShare {
        let share = BudgetShare::new(self.budget.clone());
        share.grow_unchecked(bytes);
        share
    }

    /// The sketches of a version: those that it has, unless its identity has changed. `None` if sketches are off.
    ///
    /// # Errors
    /// `policy_invalid` if the names of columns do not fit the signature.
    pub fn version(
        &self,
        spec: &EndpointSpec,
        version: &VersionSpec,
        signature: &Signature,
        baseline: Option<&Arc<Baseline>>,
    ) -> Result<Option<Arc<VersionSketch>>> {
        if !self.enabled {
            return Ok(None);
        }
        let identity = SketchIdentity {
            endpoint: spec.name.clone(),
            version: version.name.clone(),
            digest: version.digest.clone(),
            baseline: spec.baseline.clone(),
            columns: spec.columns.clone(),
        };
        if let Some(sketch) = self.find(&identity) {
            return Ok(Some(sketch));
        }
        let plan = FeaturePlan::compile(&tensor_infos(signature), &spec.columns, baseline.cloned())
            .map_err(|error| Error::new(Code::PolicyInvalid, format!("endpoint {:?}: {error}", spec.name)))?;
        Ok(Some(self.insert(identity, plan)))
    }

    /// The sketches with this identity. An update shares them with the state that is served, because the update may yet fail.
    fn find(&self, identity: &SketchIdentity) -> Option<Arc<VersionSketch>> {
        let versions = self.versions();
        let entry = versions.values().find(|entry| entry.identity == *identity)?;
        Some(entry.sketch.clone())
    }

    fn insert(&self, identity: SketchIdentity, plan: Arc<FeaturePlan>) -> Arc<VersionSketch> {
        let collector = ShardCollector::new(plan.clone(), self.budget.clone());
        let id = self.next.fetch_add(1, Relaxed);
        let sketch = Arc::new(VersionSketch { id, opener: collector.opener(), value_ns: self.value_ns });
        let memory = self.reserve(plan.bytes());
        let window = SlidingWindow::new(plan, unix_now(), &self.budget);
        let counts = Mutex::new(CollectedCounts { collector, window });
        let mut versions = self.versions();
        // Another loader thread may have added them while this one compiled.
        if let Some(entry) = versions.values().find(|entry| entry.identity == identity) {
            return entry.sketch.clone();
        }
        versions
            .insert(id, Arc::new(VersionEntry { identity, sketch: sketch.clone(), counts, _plan: memory }));
        sketch
    }

    /// Collects the counts of the threads, and drops versions that are not served any more. Skips a version while a report of it is made,
    /// because the report collects its counts itself.
    pub fn collect(&self, now: u64) {
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        self.versions().retain(|_, entry| {
            let served = Arc::strong_count(&entry.sketch) > 1;
            if served { &mut live } else { &mut gone }.push(entry.clone());
            served
        });
        // Freed without the lock, because windows are large.
        drop(gone);
        self.baselines().retain(|_, known| known.baseline.strong_count() > 0);
        let cap = self.budget.limit() / WINDOW_SHARE / live.len().max(1);
        for entry in live {
            match entry.counts.try_lock() {
                Ok(mut counts) => counts.collect(now, cap),
                Err(TryLockError::Poisoned(counts)) => counts.into_inner().collect(now, cap),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    /// The bytes of all sketches: shards, windows, plans and baselines.
    pub fn bytes(&self) -> usize {
        self.budget.used()
    }

    /// The drift report of an endpoint over the newest `seconds`. `live` has the ids of the sketches of its versions.
    ///
    /// # Errors
    /// `unsupported` if sketches are off.
    pub fn report(&self, endpoint: &str, live: &[u64], seconds: u64) -> Result<Value> {
        if !self.enabled {
            return Err(Error::new(Code::Unsupported, "sketches are off; start with --sketches on"));
        }
        let now = unix_now();
        let entries: Vec<Arc<VersionEntry>> = {
            let versions = self.versions();
            live.iter().filter_map(|id| versions.get(id).cloned()).collect()
        };
        let baseline = entries.iter().find_map(|entry| entry.identity.baseline.as_deref().map(baseline_id));
        let mut report = Report::new(endpoint, seconds, TimeSpan { from: now, to: now }, baseline);
        for entry in entries {
            let (sum, span) = entry.sum_of(seconds, now);
            report.add(&entry.identity.version, &sum, span, &Tolerance::default());
        }
        serde_json::from_slice(&report.to_json())
            .map_err(|error| Error::new(Code::Internal, format!("a drift report that is no JSON: {error}")))
    }

    fn baselines(&self) -> MutexGuard<'_, HashMap<String, CachedBaseline>> {
        self.baselines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<u64, Arc<VersionEntry>>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VersionEntry {
    /// A copy of the counts of the newest `seconds`, so that a report is made without the lock.
    fn sum_of(&self, seconds: u64, now: u64) -> (WindowSum, TimeSpan) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.take_counts(now);
        counts.window.sum(seconds, now)
    }
}

impl CollectedCounts {
    fn collect(&mut self, now: u64, cap: usize) {
        self.take_counts(now);
        self.window.close_and_shrink(now, cap);
    }

    /// Collects the counts of the threads. A version without traffic opens no sub-window, so it takes no memory.
    fn take_counts(&mut self, now: u64) {
        if !self.collector.is_idle() {
            self.collector.collect(self.window.open(now));
        }
    }
}

/// The tensors of a signature, inputs first. `after::sketching` relies on this order.
fn tensor_infos(signature: &Signature) -> Vec<TensorInfo> {
    let inputs = signature.inputs.iter().map(|spec| tensor_info(spec, Direction::Input));
    inputs.chain(signature.outputs.iter().map(|spec| tensor_info(spec, Direction::Output))).collect()
}

fn tensor_info(spec: &TensorSpec, direction: Direction) -> TensorInfo {
    let rest = spec.shape.get(1..).unwrap_or_default();
    let mut fixed = rest.iter().map(|&dim| usize::try_from(dim).ok());
    TensorInfo {
        name: spec.name.clone(),
        direction,
        datatype: ElementType::parse(spec.datatype.as_str()).unwrap_or(ElementType::Bytes),
        row_elements: fixed
            .try_fold(1usize, |product, dim| product.checked_mul(dim?))
            .filter(|_| !spec.any_rank),
    }
}

/// The digest of a baseline, from the name of its file.
fn baseline_id(path: &str) -> String {
    let stem = Path::new(path).file_stem().map_or_else(Default::default, |stem| stem.to_string_lossy());
    format!("sha256:{stem}")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
