//! Which sketches there are: one set for each version of an endpoint, kept while a snapshot holds it.
//!
//! Not here: the counting on the request path (`sketching`), bins and distances (`headgate-sketch`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::{Signature, TensorSpec};
use headgate_sketch::distance::Tolerance;
use headgate_sketch::live::Live;
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::report::Report;
use headgate_sketch::shard::{Budget, Collector, Opener};
use headgate_sketch::view::Datatype;
use headgate_sketch::window::{Span, Window};
use headgate_sketch::{Baseline, Direction};
use serde_json::Value;

use crate::config::Config;

/// Memory for the closed sub-windows of one version, in bytes.
const WINDOW_BYTES: usize = 8 << 20;

/// The sketches of one version, as its requests see them.
#[derive(Debug)]
pub struct VersionSketch {
    /// A number of its own, by which IO threads find their writers.
    pub id: u64,
    /// Makes an IO thread's writer.
    pub opener: Opener,
}

/// Everything that is sketched.
pub struct Sketches {
    enabled: bool,
    budget: Arc<Budget>,
    next: AtomicU64,
    baselines: Mutex<HashMap<String, Weak<Baseline>>>,
    versions: Mutex<HashMap<u64, Kept>>,
}

/// A version's sketches and what was collected from them.
struct Kept {
    /// What makes two states of a version the same thing to sketch.
    identity: Identity,
    sketch: Arc<VersionSketch>,
    collector: Collector,
    window: Window,
}

#[derive(Clone, Debug, PartialEq)]
struct Identity {
    endpoint: String,
    version: String,
    digest: String,
    baseline: Option<String>,
    columns: std::collections::BTreeMap<String, Vec<String>>,
}

impl Sketches {
    /// Sketches under the configuration's memory limit.
    pub fn new(config: &Config) -> Self {
        Self {
            enabled: config.sketches,
            budget: Budget::new(config.sketch_memory_bytes),
            next: AtomicU64::new(0),
            baselines: Mutex::default(),
            versions: Mutex::default(),
        }
    }

    /// The baseline that a spec names, read once; `None` for a spec without one, or when sketches are off.
    ///
    /// # Errors
    /// `policy_invalid` when the file cannot be read or is no baseline.
    pub fn baseline(&self, spec: &EndpointSpec) -> Result<Option<Arc<Baseline>>> {
        let Some(path) = spec.baseline.as_ref().filter(|_| self.enabled) else { return Ok(None) };
        let mut known = self.baselines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(baseline) = known.get(path).and_then(Weak::upgrade) {
            return Ok(Some(baseline));
        }
        let unusable = |reason: &dyn std::fmt::Display| {
            Error::new(Code::PolicyInvalid, format!("endpoint {:?}: baseline {path:?}: {reason}", spec.name))
        };
        let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
        let baseline = Arc::new(Baseline::from_json(&bytes).map_err(|error| unusable(&error))?);
        known.retain(|_, baseline| baseline.strong_count() > 0);
        known.insert(path.clone(), Arc::downgrade(&baseline));
        Ok(Some(baseline))
    }

    /// The sketches of a version: those it has, unless it became another thing to sketch. `None` when sketches are off.
    ///
    /// # Errors
    /// `policy_invalid` when the column names do not fit the signature.
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
        let identity = Identity {
            endpoint: spec.name.clone(),
            version: version.name.clone(),
            digest: version.digest.clone(),
            baseline: spec.baseline.clone(),
            columns: spec.columns.clone(),
        };
        let mut versions = self.versions();
        // The present one stays until the last snapshot with it is gone: this state may yet fail to be served.
        if let Some(kept) = versions.values().find(|kept| kept.identity == identity) {
            return Ok(Some(kept.sketch.clone()));
        }
        let plan = FeaturePlan::compile(&tensors(signature), &spec.columns, baseline.cloned())
            .map_err(|error| Error::new(Code::PolicyInvalid, format!("endpoint {:?}: {error}", spec.name)))?;
        let collector = Collector::new(plan.clone(), self.budget.clone());
        let id = self.next.fetch_add(1, Relaxed);
        let sketch = Arc::new(VersionSketch { id, opener: collector.opener() });
        let window = Window::new(plan, unix_now(), WINDOW_BYTES);
        versions.insert(id, Kept { identity, sketch: sketch.clone(), collector, window });
        Ok(Some(sketch))
    }

    /// Takes in what the threads counted, and lets go of versions that nobody serves any more.
    pub fn collect(&self, now: u64) {
        let mut versions = self.versions();
        versions.retain(|_, kept| Arc::strong_count(&kept.sketch) > 1);
        versions.values_mut().for_each(|kept| kept.collect(now));
    }

    /// Bytes held by the threads' sketches.
    pub fn bytes(&self) -> usize {
        self.budget.used()
    }

    /// The drift report of an endpoint over the newest `seconds`; `live` are the ids of the sketches that it is served with.
    ///
    /// # Errors
    /// `unsupported` when sketches are off.
    pub fn report(&self, endpoint: &str, live: &[u64], seconds: u64) -> Result<Value> {
        if !self.enabled {
            return Err(Error::new(Code::Unsupported, "sketches are off; start with --sketches on"));
        }
        let now = unix_now();
        let mut versions = self.versions();
        let baseline =
            live.iter().find_map(|id| versions.get(id)?.identity.baseline.as_deref().map(baseline_id));
        let mut report = Report::new(endpoint, seconds, Span { from: now, to: now }, baseline);
        for id in live {
            let Some(kept) = versions.get_mut(id) else { continue };
            kept.collect(now);
            let (counted, span) = kept.window.sum(seconds, now);
            report.add(&kept.identity.version, kept.collector.plan(), &counted, span, &Tolerance::default());
        }
        serde_json::from_slice(&report.to_json())
            .map_err(|error| Error::new(Code::Internal, format!("a drift report that is no JSON: {error}")))
    }

    fn versions(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Kept>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn collect(&mut self, now: u64) {
        let mut live = Live::new(self.collector.plan());
        self.collector.collect(&mut live);
        self.window.add(&live, now);
    }
}

/// The tensors of a signature, inputs first; `sketching` counts on this order.
fn tensors(signature: &Signature) -> Vec<TensorInfo> {
    let inputs = signature.inputs.iter().map(|spec| tensor(spec, Direction::Input));
    inputs.chain(signature.outputs.iter().map(|spec| tensor(spec, Direction::Output))).collect()
}

fn tensor(spec: &TensorSpec, direction: Direction) -> TensorInfo {
    let rest = spec.shape.get(1..).unwrap_or_default();
    let mut fixed = rest.iter().map(|&dim| usize::try_from(dim).ok());
    TensorInfo {
        name: spec.name.clone(),
        direction,
        datatype: Datatype::parse(spec.datatype.as_str()).unwrap_or(Datatype::Bytes),
        row_elements: fixed.try_fold(1usize, |product, dim| product.checked_mul(dim?)),
    }
}

/// A baseline's file is named after its digest.
fn baseline_id(path: &str) -> String {
    let stem = Path::new(path).file_stem().map_or_else(Default::default, |stem| stem.to_string_lossy());
    format!("sha256:{stem}")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
