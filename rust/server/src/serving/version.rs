//! What the server keeps beside each version of a snapshot: the model, the counters, the sketches, ready-made headers.

use std::sync::Arc;

use headgate_core::breaker::Breaker;
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_engine::Model;
use headgate_engine::Pin;
use http::{HeaderName, HeaderValue};

use crate::metrics::VersionMetrics;
use crate::serving::recent_success::RecentSuccess;
use crate::serving::sketch_registry::VersionSketch;

static X_VERSION: HeaderName = HeaderName::from_static("x-headgate-version");
static X_REVISION: HeaderName = HeaderName::from_static("x-headgate-revision");

/// One version, ready to answer.
pub struct VersionState {
    /// What computes.
    pub model: Arc<Model>,
    /// What is counted.
    pub metrics: Arc<VersionMetrics>,
    /// What is sketched, unless sketches are off.
    pub sketch: Option<Arc<VersionSketch>>,
    /// Whether it is a constant, which answers everything that fits its signature.
    pub is_constant: bool,
    /// What its answers say of it, where no input is known that it takes.
    pub recent_success: RecentSuccess,
    /// Keeps it in memory, where it is to stay there.
    pin: Option<Pin>,
    /// When it is left alone, where its endpoint has a rule for that.
    pub breaker: Option<Arc<Breaker>>,
    /// The value of `x-headgate-version`.
    pub version_header: HeaderValue,
    /// The value of `x-headgate-revision`.
    pub revision_header: HeaderValue,
}

/// What a version's state is put together from, beside its spec.
pub struct VersionParts {
    /// What computes.
    pub model: Arc<Model>,
    /// What is counted.
    pub metrics: Arc<VersionMetrics>,
    /// What is sketched, unless sketches are off.
    pub sketch: Option<Arc<VersionSketch>>,
    /// The breaker, if the endpoint has a rule for one.
    pub breaker: Option<Arc<Breaker>>,
}

impl VersionState {
    /// The state of a version of `spec`.
    ///
    /// # Errors
    /// `internal` when a name cannot be a header value, which the names' grammar rules out.
    pub fn new(spec: &EndpointSpec, version: &VersionSpec, parts: VersionParts) -> Result<VersionState> {
        let VersionParts { model, metrics, sketch, breaker } = parts;
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::new(Code::Internal, format!("{text:?} is no header value")))
        };
        Ok(VersionState {
            is_constant: version.constant.is_some(),
            recent_success: RecentSuccess::default(),
            pin: version.pinned.then(|| model.resident().pin()),
            model,
            metrics,
            sketch,
            breaker,
            version_header: header(&version.name)?,
            revision_header: header(&spec.revision.to_string())?,
        })
    }

    /// Whether it is to stay in memory.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// The headers that say who answered.
    pub fn headers(&self) -> [(HeaderName, HeaderValue); 2] {
        [(X_VERSION.clone(), self.version_header.clone()), (X_REVISION.clone(), self.revision_header.clone())]
    }
}

impl std::fmt::Debug for VersionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionState").field("version", &self.metrics.version).finish_non_exhaustive()
    }
}
