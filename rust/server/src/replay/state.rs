//! One replay: what it is about, and what it has found so far.
//!
//! Next: `run`, `report`.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use headgate_capture::layout::VersionIdentity;
use headgate_core::histogram::Histogram;
use headgate_core::spec::Device;
use headgate_engine::{Model, RunCounters};

use crate::replay::source::{RecordedFiles, Span};
use crate::shadow::pairing::Pairing;
use crate::shadow::tally::Tally;

/// What a replay is about.
pub struct ReplayPlan {
    /// The version that is asked.
    pub version: VersionIdentity,
    /// Its model.
    pub model: Arc<Model>,
    /// How its tensors belong to those that were captured.
    pub pairing: Pairing,
    /// The version that answered, whose requests they are.
    pub against: VersionIdentity,
    /// What asking it again needs; or why it is not asked.
    pub again: Result<FloorPlan, &'static str>,
    /// The files.
    pub files: RecordedFiles,
    /// The span of time.
    pub span: Span,
    /// The most requests.
    pub max_requests: Option<u64>,
    /// How long a run may take.
    pub timeout: Duration,
    /// The cores that one run may take.
    pub run_threads: u64,
}

/// What the second runs of the version that answered need, for the noise floor.
pub struct FloorPlan {
    /// Its model.
    pub model: Arc<Model>,
    /// How its tensors belong to those that were captured.
    pub pairing: Pairing,
    /// The cores that one run may take.
    pub run_threads: u64,
}

/// A replay, while it runs and afterwards.
pub struct ReplayState {
    /// Its number.
    pub id: u64,
    /// What it is about.
    pub summary: ReplaySummary,
    /// When it began.
    pub started: SystemTime,
    /// Set to end it.
    pub cancelled: AtomicBool,
    /// Why it had to end, if nobody asked for it.
    pub cancel_reason: OnceLock<String>,
    /// The counters of its runs.
    pub runs: Arc<RunCounters>,
    /// CPU time of its runs, in nanoseconds.
    pub cpu_ns: AtomicU64,
    findings: Mutex<ReplayFindings>,
}

/// What stays of a plan when the replay has ended: no model, no file.
pub struct ReplaySummary {
    /// The version that was asked.
    pub version: VersionIdentity,
    /// Where it computes.
    pub device: Device,
    /// The version that answered.
    pub against: VersionIdentity,
    /// The span of time.
    pub span: Span,
    /// The most requests.
    pub max_requests: Option<u64>,
    /// Files that were left out, because their tensors are others.
    pub other_tensors: u64,
    /// Why the version that answered is not asked again.
    pub no_floor: Option<&'static str>,
    /// The names of the classes of each output that is compared.
    pub labels: Vec<(String, Vec<String>)>,
}

/// What a replay has found so far.
#[derive(Default)]
pub struct ReplayFindings {
    /// How it ended; `None` while it runs.
    pub end: Option<ReplayEnd>,
    /// Requests that were put to the version.
    pub replayed: u64,
    /// Requests that rules or callers sent to the version that answered: they are no random part of the traffic.
    pub skipped: u64,
    /// Requests that the version does not take.
    pub incompatible: u64,
    /// Requests whose version was out of memory.
    pub not_ready: u64,
    /// The counts, as a shadow has them.
    pub tally: Tally,
    /// The times of the runs when the requests were answered.
    pub recorded_runs: Histogram,
    /// The times of the runs of the version that answered, again.
    pub again_runs: Histogram,
}

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    /// All requests were replayed.
    Done(SystemTime),
    /// Somebody ended it, or the gateway stopped; or it had to end, with the reason.
    Cancelled(SystemTime, Option<String>),
    /// A file could not be read.
    Failed(SystemTime, String),
}

impl ReplaySummary {
    /// The versions that it runs.
    pub fn versions(&self) -> impl Iterator<Item = &VersionIdentity> {
        let again = self.no_floor.is_none().then_some(&self.against);
        std::iter::once(&self.version).chain(again)
    }
}

impl ReplayState {
    /// A replay that has found nothing yet.
    pub fn new(id: u64, plan: &ReplayPlan) -> ReplayState {
        let labels = plan.pairing.outputs.iter().map(|output| (output.name.clone(), output.labels.clone()));
        let summary = ReplaySummary {
            version: plan.version.clone(),
            device: plan.model.device(),
            against: plan.against.clone(),
            span: plan.span,
            max_requests: plan.max_requests,
            other_tensors: plan.files.other_tensors,
            no_floor: plan.again.as_ref().err().copied(),
            labels: labels.collect(),
        };
        let tally = Tally::new(&plan.pairing.outputs, 0);
        ReplayState {
            id,
            summary,
            started: SystemTime::now(),
            cancelled: AtomicBool::new(false),
            cancel_reason: OnceLock::new(),
            runs: Arc::default(),
            cpu_ns: AtomicU64::new(0),
            findings: Mutex::new(ReplayFindings { tally, ..ReplayFindings::default() }),
        }
    }

    /// What it has found so far. No IO thread takes this lock.
    pub fn findings(&self) -> MutexGuard<'_, ReplayFindings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
