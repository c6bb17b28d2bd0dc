//! A shadow that is served: what IO threads hand copies to, what its runs need, and what outlives a revision.
//!
//! A [`LiveShadow`] belongs to one revision. Its [`ShadowState`] (the queue and all counts) outlives revisions for as long as the same
//! version is compared with the same champion in the same way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use headgate_core::comparison::Comparison;
use headgate_core::error::Code;
use headgate_core::rules::FieldName;
use headgate_core::shadow::{DrawBy, ShadowSpec};
use headgate_core::spec::RunSpec;
use headgate_core::trial::outputs::VersionOutputs;
use headgate_engine::Instant;
use headgate_engine::{Model, RunCounters};

use crate::copied_run::CopiedRun;
use crate::shadow::cpu_budget::CpuBudget;
use crate::shadow::drops::{DropCounts, DropReason};
use crate::shadow::pairing::{Mismatch, Pairing};
use crate::shadow::queue::{CopyQueue, HeldBytes, Refused};
use crate::shadow::tally::examples::Redaction;
use crate::shadow::tally::slices::SliceValues;
use crate::shadow::tally::{ChampionFailures, Tally};

/// A shadow of one revision.
pub struct LiveShadow {
    /// What outlives the revision.
    pub state: Arc<ShadowState>,
    /// What its runs need.
    pub plan: Arc<ShadowPlan>,
}

/// What the runs of a shadow need.
pub struct ShadowPlan {
    /// The version's model.
    pub model: Arc<Model>,
    /// How its tensors belong to the champion's; or why they do not.
    pub pairing: Result<Pairing, Mismatch>,
    /// How the champion's tensors belong to its own.
    pub own_pairing: Option<Pairing>,
    /// The outputs of the champion and its own whose distributions are compared, if the baseline has bins for some.
    pub outputs: Option<[Arc<VersionOutputs>; 2]>,
    /// How long a copy may wait and run.
    pub timeout: Duration,
    /// The most runs of the version at the same time (`run.instances`); 0 is no bound.
    pub instances: usize,
    /// The cores that one run of it may take.
    pub run_threads: u64,
    /// The cores that one run of the champion may take.
    pub champion_threads: u64,
    /// What the document says of it.
    pub spec: Arc<ShadowSpec>,
    /// What examples leave out.
    pub redaction: Redaction,
}

/// What says whether two revisions have the same shadow.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowKey {
    /// The digest of the version and how it is run.
    pub version: (String, RunSpec),
    /// The same of the champion.
    pub champion: (String, RunSpec),
    /// What is drawn.
    pub by: DrawBy,
    /// How outputs are compared.
    pub compare: BTreeMap<String, Comparison>,
    /// The fields whose values are counted apart.
    pub slices: Vec<FieldName>,
    /// The hash of the outputs whose distributions are compared, and of their bins.
    pub outputs: Option<u64>,
}

/// What outlives a revision.
pub struct ShadowState {
    /// The endpoint's name.
    pub endpoint: String,
    /// The version's name.
    pub version: String,
    /// What it is compared with, and how.
    pub key: ShadowKey,
    /// Since when it counts.
    pub since: SystemTime,
    /// The copies that wait.
    pub queue: CopyQueue<ShadowCopy>,
    /// Copies that were drawn.
    pub drawn: AtomicU64,
    /// Copies that were dropped.
    pub drops: DropCounts,
    /// Requests that the champion failed on and whose inputs were lost with its run.
    lost: LostCounts,
    /// The counters of its runs.
    pub runs: Arc<RunCounters>,
    /// The CPU time of its runs and comparisons, in nanoseconds.
    pub cpu_ns: AtomicU64,
    /// The threads that run a copy of it, and the most that may.
    pub in_progress: AtomicUsize,
    /// See `in_progress`.
    pub parallel: AtomicUsize,
    budget: Arc<CpuBudget>,
    tally: Mutex<Tally>,
}

/// How many requests were lost, by the champion's code. Any thread counts.
#[derive(Default)]
struct LostCounts([AtomicU64; Code::ALL.len()]);

/// A copy of a request.
pub struct ShadowCopy {
    /// The tensors.
    pub copied: Arc<CopiedRun>,
    /// The values of the fields that are counted apart.
    pub slices: SliceValues,
    /// The shadow as it was when the request was drawn.
    pub plan: Arc<ShadowPlan>,
    /// When it was queued.
    pub queued_at: Instant,
}

impl ShadowCopy {
    /// When it is of no more use.
    pub fn until(&self) -> Instant {
        self.queued_at + self.plan.timeout
    }
}

impl ShadowState {
    /// A shadow that has counted nothing and takes nothing yet.
    pub fn new(
        (endpoint, version): (&str, &str),
        key: ShadowKey,
        tally: Tally,
        held: &Arc<HeldBytes>,
        budget: &Arc<CpuBudget>,
    ) -> ShadowState {
        ShadowState {
            endpoint: endpoint.to_owned(),
            version: version.to_owned(),
            key,
            since: SystemTime::now(),
            queue: CopyQueue::new(held),
            drawn: AtomicU64::new(0),
            drops: DropCounts::default(),
            lost: LostCounts::default(),
            runs: Arc::default(),
            cpu_ns: AtomicU64::new(0),
            in_progress: AtomicUsize::new(0),
            parallel: AtomicUsize::new(1),
            budget: budget.clone(),
            tally: Mutex::new(tally),
        }
    }

    /// The counts. No IO thread takes this lock.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests that the champion failed on, with those whose inputs were lost.
    pub fn champion_failures(&self) -> ChampionFailures {
        let mut failures = self.tally().champion_failed.clone();
        for (code, lost) in Code::ALL.iter().zip(&self.lost.0) {
            let lost = lost.load(Relaxed);
            if lost > 0 {
                *failures.by_code.entry(code.as_str()).or_default() += lost;
                failures.inputs_lost += lost;
            }
        }
        failures
    }

    /// Takes no more copies, and counts those that wait as dropped.
    pub fn close(&self, reason: DropReason) {
        self.drops.add(reason, self.queue.close(reason));
    }
}

impl LiveShadow {
    /// Counts a request that the champion failed on with `code`, and whose inputs are lost. Called by IO threads, seldom: it takes no lock.
    pub fn count_lost(&self, code: Code) {
        self.state.drawn.fetch_add(1, Relaxed);
        self.state.lost.0[code as usize].fetch_add(1, Relaxed);
    }

    /// Takes a copy of a request, or counts why not. Does not wait.
    pub fn offer(&self, copied: &Arc<CopiedRun>, slices: SliceValues) {
        let ShadowState { queue, drawn, drops, budget, .. } = &*self.state;
        drawn.fetch_add(1, Relaxed);
        if budget.cores() <= 0.0 {
            // It would wait until its deadline.
            return drops.add(DropReason::CpuBudget, 1);
        }
        let (now, bytes) = (copied.at, copied.bytes);
        let copy = ShadowCopy { copied: copied.clone(), slices, plan: self.plan.clone(), queued_at: now };
        if let Err(Refused { reason, copies }) = queue.push(copy, bytes) {
            let by_budget =
                matches!(reason, DropReason::QueueFull | DropReason::Bytes) && budget.has_waited_lately(now);
            drops.add(if by_budget { DropReason::CpuBudget } else { reason }, copies);
        }
    }
}
