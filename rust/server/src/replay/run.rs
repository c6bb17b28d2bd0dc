//! The run of a replay, on a thread of the lowest priority and within the CPU budget of shadows.
//!
//! Next: `shadow::pair_run`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use headgate_capture::reader::RecordedRow;
use headgate_core::error::Code;
use headgate_engine::Instant;
use headgate_engine::RunThread;

use crate::replay::recorded::RecordedRequest;
use crate::replay::source;
use crate::replay::state::{FloorPlan, ReplayEnd, ReplayPlan, ReplayState};
use crate::scheduling::lowest_priority;
use crate::shadow::cpu_budget::CpuBudget;
use crate::shadow::pair_run::{PairOutcome, PairRunner};
use crate::shadow::tally::ShadowAttempt;

/// The longest wait for CPU time, after which the thread looks whether it must end.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// A replay on its thread.
pub struct ReplayRun<'a> {
    /// What it is about.
    pub plan: &'a ReplayPlan,
    /// What it has found.
    pub state: &'a Arc<ReplayState>,
    /// The CPU time that it may take.
    pub budget: &'a CpuBudget,
    /// Its thread.
    pub thread: &'a RunThread<'a>,
}

/// Whether to go on.
enum Next {
    Row,
    End,
}

impl ReplayRun<'_> {
    /// Replays all requests.
    pub fn run(&self) {
        lowest_priority();
        let replayed = self.files();
        let now = SystemTime::now();
        self.state.findings().end = Some(match replayed {
            Ok(()) if self.is_cancelled() => {
                ReplayEnd::Cancelled(now, self.state.cancel_reason.get().cloned())
            }
            Ok(()) => ReplayEnd::Done(now),
            Err(reason) => ReplayEnd::Failed(now, reason),
        });
    }

    fn files(&self) -> Result<(), String> {
        let mut has_row = false;
        for path in &self.plan.files.paths {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let mut reader = match source::open(path) {
                Ok(reader) => reader,
                Err(_) if source::is_gone(path) => continue,
                Err(error) => return Err(failed(error)),
            };
            while let Some(rows) = reader.next_batch().map_err(failed)? {
                if self.is_cancelled() {
                    return Ok(());
                }
                for row in rows.iter().filter(|row| self.plan.span.has(row)) {
                    has_row = true;
                    if let Next::End = self.row(row) {
                        return Ok(());
                    }
                }
            }
        }
        if has_row { Ok(()) } else { Err("no captured request is within that time".to_owned()) }
    }

    fn is_cancelled(&self) -> bool {
        self.state.cancelled.load(Relaxed)
    }

    fn row(&self, row: &RecordedRow) -> Next {
        if !matches!(&*row.reason, "sticky" | "drawn") {
            self.state.findings().skipped += 1;
            return Next::Row;
        }
        if self.plan.max_requests.is_some_and(|most| most <= self.state.findings().replayed) {
            return Next::End;
        }
        while let Some(wait) = self.budget.wait(Instant::now()).filter(|_| !self.is_cancelled()) {
            std::thread::park_timeout(wait.min(MAX_WAIT));
        }
        if self.is_cancelled() {
            return Next::End;
        }
        let ReplayState { cpu_ns, .. } = &**self.state;
        let wants_floor = self.budget.pay_for(self.plan.run_threads, cpu_ns, || self.replay(row));
        if let Ok(floor) = self.plan.again.as_ref()
            && wants_floor
        {
            self.budget.pay_for(floor.run_threads, cpu_ns, || self.ask_again(floor, row));
        }
        Next::Row
    }

    /// Puts a request to the version. Returns whether the version that answered should be asked again.
    fn replay(&self, row: &RecordedRow) -> bool {
        let request = RecordedRequest { tensors: &self.plan.files.tensors, row };
        let runner = PairRunner { thread: self.thread, counters: &self.state.runs };
        let until = Instant::now() + self.plan.timeout;
        let outcome = runner.run(&self.plan.model, &self.plan.pairing, &request, until);
        // A run that was cancelled with the replay says nothing about the version.
        if self.is_cancelled() && matches!(outcome, PairOutcome::Failed { .. }) {
            return false;
        }
        self.state.findings().replayed += 1;
        if request.is_answered() {
            return self.count_answered(&request, outcome);
        }
        self.count_failed(row, &outcome);
        false
    }

    /// Counts the run of a request that had been answered. Returns whether the version that answered should be asked again.
    fn count_answered(&self, request: &RecordedRequest<'_>, outcome: PairOutcome) -> bool {
        // Compared before the lock is taken, because reports wait for it.
        let found = match &outcome {
            PairOutcome::Answered(run) => run.compare(&self.plan.pairing, request),
            _ => None,
        };
        let mut findings = self.state.findings();
        if let Some(run_ns) = request.row.run_ns {
            findings.recorded_runs.record(run_ns);
        }
        match (outcome, found) {
            (PairOutcome::Answered(run), Some(found)) => {
                findings.tally.add_pair(&found, &Box::default(), run.run_ns);
                return findings.tally.wants_floor();
            }
            (PairOutcome::Answered(run), None) => {
                findings.tally.add_error(Code::Internal, false, run.run_ns);
            }
            (PairOutcome::Failed { code, run_ns, timed_out }, _) => {
                findings.tally.add_error(code, timed_out, run_ns);
            }
            (PairOutcome::NotReady, _) => findings.not_ready += 1,
            (PairOutcome::Incompatible(mismatch), _) => {
                findings.incompatible += 1;
                findings.tally.last_mismatch = Some(mismatch);
            }
        }
        false
    }

    /// Counts the run of a request that the version that was asked had failed on.
    fn count_failed(&self, row: &RecordedRow, outcome: &PairOutcome) {
        let attempt = match outcome {
            PairOutcome::Answered(run) => ShadowAttempt::Answered { run_ns: run.run_ns },
            PairOutcome::Failed { run_ns, .. } => ShadowAttempt::Failed { run_ns: *run_ns },
            PairOutcome::NotReady => {
                self.state.findings().not_ready += 1;
                return;
            }
            // A failed run may have cost the inputs.
            PairOutcome::Incompatible(_) => ShadowAttempt::InputsLost,
        };
        let known = Code::ALL.iter().copied().find(|code| code.as_str() == row.code);
        let code = known.unwrap_or(Code::Internal);
        self.state.findings().tally.add_champion_failure(code, attempt);
    }

    /// Asks the version that answered again: what it differs from itself, another version may differ from it.
    fn ask_again(&self, floor: &FloorPlan, row: &RecordedRow) {
        let FloorPlan { model, pairing, .. } = floor;
        let request = RecordedRequest { tensors: &self.plan.files.tensors, row };
        let runner = PairRunner { thread: self.thread, counters: &self.state.runs };
        let outcome = runner.run(model, pairing, &request, Instant::now() + self.plan.timeout);
        let found = match &outcome {
            PairOutcome::Answered(run) => run.compare(pairing, &request).map(|found| (found, run.run_ns)),
            _ => None,
        };
        let mut findings = self.state.findings();
        match (outcome, found) {
            (_, Some((found, run_ns))) => {
                findings.again_runs.record(run_ns);
                findings.tally.floor.add(found.differs());
            }
            (PairOutcome::NotReady, _) => findings.tally.floor.skipped += 1,
            (_, None) => findings.tally.floor.errors += 1,
        }
    }
}
