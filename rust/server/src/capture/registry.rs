//! Which versions are captured, and the counters of each endpoint's capture, which outlive the revisions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_capture::counters::DropReason;
use headgate_capture::layout::{FileLayout, VersionIdentity};
use headgate_capture::row::RowFacts;
use headgate_capture::store::{CaptureTarget, CountersByEndpoint, Retention};
use headgate_core::shadow::{Capture, CaptureSpec};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::Signature;
use serde_json::{Map, Value, json};

use crate::capture::queue::{CaptureDestination, CaptureQueue, CapturedRequest};
use crate::config::Config;
use crate::copied_run::CopiedRun;

/// What the requests of one version need to be captured.
pub struct VersionCapture {
    destination: Arc<CaptureDestination>,
    queue: Arc<CaptureQueue>,
}

impl VersionCapture {
    /// Captures a request; `run` has its tensors, unless they were lost. Never waits.
    pub fn capture(&self, facts: RowFacts, run: Option<Arc<CopiedRun>>) {
        self.queue.offer(CapturedRequest { destination: self.destination.clone(), facts, run });
    }
}

/// The capture of all endpoints.
pub struct CaptureRegistry {
    folder: Option<PathBuf>,
    /// The most bytes of all files.
    pub max_bytes: u64,
    /// The counters.
    pub counters: Arc<CountersByEndpoint>,
    /// The queue to the writer.
    pub queue: Arc<CaptureQueue>,
    /// The bounds that the writer does not know yet, by endpoint.
    changed: Mutex<BTreeMap<String, ChangedRetention>>,
}

/// The bounds of an endpoint's files since a revision.
pub struct ChangedRetention {
    /// The bounds.
    pub retention: Retention,
    /// The revision.
    pub revision: u64,
}

impl CaptureRegistry {
    /// The registry of a gateway.
    pub fn new(config: &Config) -> CaptureRegistry {
        let (folder, max_bytes) = (config.capture_folder.clone(), config.capture_bytes);
        CaptureRegistry {
            folder,
            max_bytes,
            counters: Arc::default(),
            queue: Arc::default(),
            changed: Mutex::default(),
        }
    }

    /// Whether a version may hand over requests.
    pub fn is_capturing(&self) -> bool {
        Arc::strong_count(&self.queue) > 1
    }

    /// The folder of all files; none if the gateway has nowhere to put them.
    pub fn folder(&self) -> Option<&PathBuf> {
        self.folder.as_ref()
    }

    /// What the requests of a version need. `None` if the endpoint is not captured.
    pub fn version(
        &self,
        spec: &EndpointSpec,
        version: &VersionSpec,
        signature: &Signature,
    ) -> Option<VersionCapture> {
        let capture: &CaptureSpec = spec.capture.as_ref().filter(|_| self.folder.is_some())?;
        let identity = VersionIdentity {
            endpoint: spec.name.clone(),
            version: version.name.clone(),
            digest: version.digest.clone(),
        };
        let layout = Arc::new(FileLayout::new(identity, signature, &spec.columns, &capture.redact));
        let retention = retention_of(capture);
        let target = CaptureTarget { layout, retention };
        let destination = Arc::new(CaptureDestination { target, counters: self.counters.of(&spec.name) });
        let capture = VersionCapture { destination, queue: self.queue.clone() };
        // The writer looks seldom while no version is captured.
        self.queue.wake();
        Some(capture)
    }

    /// Has the writer apply the bounds of a document that is served now. One without capture leaves them as they are.
    pub fn publish(&self, spec: &EndpointSpec) {
        let Some(capture) = spec.capture.as_ref().filter(|_| self.folder.is_some()) else { return };
        let changed = ChangedRetention { retention: retention_of(capture), revision: spec.revision };
        self.changed().insert(spec.name.clone(), changed);
        self.queue.wake();
    }

    /// The bounds that were published since the last call, for the writer.
    pub fn take_changed(&self) -> BTreeMap<String, ChangedRetention> {
        std::mem::take(&mut *self.changed())
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<String, ChangedRetention>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is captured of an endpoint; `null` if nothing is and nothing was.
    pub fn status(&self, endpoint: &str, capture: Option<&Capture>) -> Value {
        let Some(counters) = self.counters.find(endpoint) else { return Value::Null };
        let dropped: Map<String, Value> = DropReason::ALL
            .iter()
            .map(|&reason| (reason.as_str().to_owned(), json!(counters.dropped(reason))))
            .collect();
        let failure = counters.failure().map(|failure| {
            let since = humantime::format_rfc3339_seconds(failure.since).to_string();
            json!({"reason": failure.reason, "since": since})
        });
        let spec = capture.map(|capture| &capture.spec);
        json!({
            "share": spec.map(|spec| spec.share),
            "keep_ms": spec.map(|spec| spec.keep_ms),
            "max_bytes": spec.map(|spec| spec.max_bytes),
            "rows": counters.rows.load(Relaxed),
            "dropped": dropped,
            "errors": counters.errors.load(Relaxed),
            "failure": failure,
            "disk_files": counters.disk_files.load(Relaxed),
            "disk_bytes": counters.disk_bytes.load(Relaxed),
        })
    }
}

fn retention_of(capture: &CaptureSpec) -> Retention {
    Retention { keep_ms: capture.keep_ms, max_bytes: capture.max_bytes }
}
