//! The run of a replay, on a thread of the lowest priority and within the CPU budget of shadows.
//!
//! Next: `shadow::pair_run`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use headgate_capture::reader::RecordedRow;
use headgate_core::error::Code;
use headgate_engine::RunThread;

use crate::replay::recorded::RecordedRequest;
use crate::replay::source;
use crate::replay::state::{ReplayEnd, ReplayPlan, ReplayState};
use crate::scheduling::{lowest_priority, thread_cpu_ns};
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
            Ok(()) if self.is_cancelled() => ReplayEnd::Cancelled(now),
            Ok(()) => ReplayEnd::Done(now),
            Err(reason) => ReplayEnd::Failed(now, reason),
        });
    }

    fn files(&self) -> Result<(), String> {
        for path in &self.plan.files.paths {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let mut reader = match source::open(path) {
                Ok(reader) => reader,
                Err(_) if source::is_gone(path) => continue,
                Err(error) => return Err(failed(error)),
            };
            while let Some(rows) = reader.next_batch().map_err(failed)? {
                for row in rows.iter().filter(|row| self.plan.span.has(row)) {
                    if let Next::End = self.row(row) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
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
        self.paid(|| self.replay(row));
        Next::Row
    }

    /// Does the work, and pays for it.
    fn paid(&self, work: impl FnOnce()) {
        let (begun, cpu_begun) = (Instant::now(), thread_cpu_ns());
        work();
        let own_ns = thread_cpu_ns().saturating_sub(cpu_begun);
        let now = Instant::now();
        // What ONNX Runtime's own threads took is not known; they may all have been busy for as long as this.
        let all_ns = (now - begun).as_nanos() as u64 * self.plan.run_threads;
        let cpu_ns = if self.plan.run_threads > 1 { own_ns.max(all_ns) } else { own_ns };
        self.state.cpu_ns.fetch_add(cpu_ns, Relaxed);
        self.budget.charge(cpu_ns, now);
    }

    fn replay(&self, row: &RecordedRow) {
        let request = RecordedRequest { tensors: &self.plan.files.tensors, row };
        let runner = PairRunner { thread: self.thread, counters: &self.state.runs };
        let until = Instant::now() + self.plan.timeout;
        let outcome = runner.run(&self.plan.model, &self.plan.pairing, &request, until);
        // A run that was cancelled with the replay says nothing about the version.
        if self.is_cancelled() && matches!(outcome, PairOutcome::Failed { .. }) {
            return;
        }
        self.state.findings().replayed += 1;
        if row.code == "ok" {
            self.count_answered(&runner, &request, outcome);
        } else {
            self.count_failed(row, &outcome);
        }
    }

    /// Counts the run of a request that had been answered.
    fn count_answered(&self, runner: &PairRunner<'_>, request: &RecordedRequest<'_>, outcome: PairOutcome) {
        let mut findings = self.state.findings();
        if let Some(run_ns) = request.row.run_ns {
            findings.recorded_runs.record(run_ns);
        }
        match outcome {
            PairOutcome::Answered(run) => match run.compare(&self.plan.pairing, request) {
                Some(found) => findings.tally.add_pair(&found, &Box::default(), run.run_ns),
                None => findings.tally.add_error(Code::Internal, false, run.run_ns),
            },
            PairOutcome::Failed { code, run_ns, timed_out } => {
                findings.tally.add_error(code, timed_out, run_ns);
            }
            PairOutcome::NotReady => findings.not_ready += 1,
            PairOutcome::Incompatible(mismatch) => {
                findings.incompatible += 1;
                findings.tally.last_mismatch = Some(mismatch);
            }
        }
        let wants_floor = findings.tally.wants_floor();
        drop(findings);
        if wants_floor {
            self.ask_again(runner, request);
        }
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
    fn ask_again(&self, runner: &PairRunner<'_>, request: &RecordedRequest<'_>) {
        let Ok((model, pairing)) = &self.plan.again else { return };
        let outcome = runner.run(model, pairing, request, Instant::now() + self.plan.timeout);
        let found = match &outcome {
            PairOutcome::Answered(run) => run.compare(pairing, request).map(|found| (found, run.run_ns)),
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
