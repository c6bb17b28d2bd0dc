//! The server's state of each version of a snapshot: the model, the counters, the sketches, ready-made headers.

use std::sync::Arc;

use headgate_core::breaker::Breaker;
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::trial::arm::TrialArm;
use headgate_engine::MemoryPin;
use headgate_engine::Model;
use headgate_protocol::response::ResponseTemplate;
use http::{HeaderName, HeaderValue};

use crate::capture::registry::VersionCapture;
use crate::feedback::endpoint::VersionReceipts;
use crate::headers::PreparedFields;
use crate::metrics::VersionMetrics;
use crate::serving::recent_success::RecentSuccess;
use crate::serving::sketch_registry::VersionSketch;
use crate::shadow::live_shadow::LiveShadow;

static X_VERSION: HeaderName = HeaderName::from_static("x-headgate-version");
static X_REVISION: HeaderName = HeaderName::from_static("x-headgate-revision");

/// The state of one version.
pub struct VersionState {
    /// The model.
    pub model: Arc<Model>,
    /// The counters.
    pub metrics: Arc<VersionMetrics>,
    /// The sketches, unless they are off.
    pub sketch: Option<Arc<VersionSketch>>,
    /// What its requests need to be captured; `None` if they are not.
    pub capture: Option<VersionCapture>,
    /// The shadow that it is, if it gets copies of requests.
    pub shadow: Option<Arc<LiveShadow>>,
    /// The cores that one run of it may take.
    pub run_threads: u64,
    /// Whether it is a constant, which answers every request that fits its signature.
    pub is_constant: bool,
    /// Whether it has answered lately. This stands in for a probe if no input is known that the version takes.
    pub recent_success: RecentSuccess,
    /// Keeps the model in memory, if it must stay there.
    pin: Option<MemoryPin>,
    /// The breaker, if the endpoint has a rule for one.
    pub breaker: Option<Arc<Breaker>>,
    /// The counters of the trial that it is part of, while one is on.
    pub trial: Option<Arc<TrialArm>>,
    /// What it needs to issue receipts, if the endpoint takes feedback.
    pub receipts: Option<VersionReceipts>,
    /// Whether it has a trial or issues receipts, so that requests without either pay for one test.
    pub is_evaluated: bool,
    /// The response headers that name the version and the revision.
    pub headers: PreparedFields,
    /// What is the same in the bodies of its responses.
    pub response: ResponseTemplate,
}

/// The parts of a version's state that do not follow from its spec alone.
pub struct VersionParts {
    /// The model.
    pub model: Arc<Model>,
    /// The counters.
    pub metrics: Arc<VersionMetrics>,
    /// The sketches, unless they are off.
    pub sketch: Option<Arc<VersionSketch>>,
    /// The breaker, if the endpoint has a rule for one.
    pub breaker: Option<Arc<Breaker>>,
    /// What its requests need to be captured; `None` if they are not.
    pub capture: Option<VersionCapture>,
    /// The shadow that it is, if it gets copies of requests.
    pub shadow: Option<Arc<LiveShadow>>,
    /// The counters of the trial that it is part of.
    pub trial: Option<Arc<TrialArm>>,
    /// What it needs to issue receipts, if the endpoint takes feedback.
    pub receipts: Option<VersionReceipts>,
}

impl VersionState {
    /// The state of a version of `spec`.
    ///
    /// # Errors
    /// `internal` if a name cannot be a header value, which the grammar of names rules out.
    pub fn new(spec: &EndpointSpec, version: &VersionSpec, parts: VersionParts) -> Result<VersionState> {
        let VersionParts { model, metrics, sketch, breaker, capture, shadow, trial, receipts } = parts;
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::new(Code::Internal, format!("{text:?} is no header value")))
        };
        let names = [
            (X_VERSION.clone(), header(&version.name)?),
            (X_REVISION.clone(), header(&spec.revision.to_string())?),
        ];
        Ok(VersionState {
            headers: PreparedFields::new(names),
            response: ResponseTemplate::new(&spec.name, &version.name, &model.signature().outputs),
            run_threads: match version.run.threads {
                0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
                threads => u64::from(threads),
            },
            is_constant: version.constant.is_some(),
            recent_success: RecentSuccess::default(),
            pin: version.pinned.then(|| model.resident().pin()),
            is_evaluated: trial.is_some() || receipts.is_some(),
            model,
            metrics,
            sketch,
            capture,
            breaker,
            shadow,
            trial,
            receipts,
        })
    }

    /// Whether the model must stay in memory.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }
}

impl std::fmt::Debug for VersionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionState").field("version", &self.metrics.version).finish_non_exhaustive()
    }
}
