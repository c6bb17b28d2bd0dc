//! The threads that run shadows: of the lowest priority, within a CPU budget, each run with a deadline of its own.
//!
//! IO threads never wake them. An idle thread looks for copies every few milliseconds, and only while there are shadows. The threads have
//! nice 19 and not `SCHED_IDLE`: a thread that holds a lock of the allocator must get a core now and then, because an IO thread may wait for
//! that lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_core::error::{Code, Result};
use headgate_engine::Instant;
use headgate_engine::{RunThread, RunThreads, ThreadCounts};

use crate::copied_run::Answer;
use crate::output_bins;
use crate::scheduling::lowest_priority;
use crate::shadow::cpu_budget::CpuBudget;
use crate::shadow::drops::DropReason;
use crate::shadow::live_shadow::{ShadowCopy, ShadowState};
use crate::shadow::pair_run::{AnsweredRun, PairOutcome, PairRunner};
use crate::shadow::pairing::Pairing;
use crate::shadow::tally::ShadowAttempt;
use crate::shadow::tally::examples::{ExampleRequest, example};

/// How often an idle thread looks for copies.
const POLL: Duration = Duration::from_millis(5);
/// The longest wait for CPU time, after which a thread looks whether it must end.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// How long a surplus thread is idle before it ends.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// The most threads beyond the usual number, in place of those whose runs do not end or take long.
const MAX_EXTRA: usize = 14;

/// The threads.
pub struct ShadowThreads {
    threads: RunThreads,
    core: Arc<ThreadsCore>,
    /// The usual number of threads.
    count: usize,
    started: Mutex<bool>,
}

struct ThreadsCore {
    budget: Arc<CpuBudget>,
    shadows: Mutex<Vec<Arc<ShadowState>>>,
    /// The shadow that is looked at first.
    next: AtomicUsize,
    stopping: AtomicBool,
}

impl ShadowThreads {
    /// Threads for a budget, none of which is started: as many as the budget has cores, and one more, so that a run that does not end holds
    /// up no other shadow.
    pub fn new(budget: Arc<CpuBudget>) -> ShadowThreads {
        let count = parallel_runs(&budget) + 1;
        let core = ThreadsCore {
            budget,
            shadows: Mutex::default(),
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        };
        ShadowThreads {
            threads: RunThreads::new("hg-shadow", count, MAX_EXTRA),
            core: Arc::new(core),
            count,
            started: Mutex::new(false),
        }
    }

    /// Replaces the list of shadows whose copies are run.
    pub fn set_shadows(&self, shadows: Vec<Arc<ShadowState>>) {
        *self.core.shadows() = shadows;
    }

    /// Starts the threads once there are shadows. Cancels runs whose deadline has passed, and adds threads in place of those whose runs do
    /// not end.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads; the next check tries again.
    pub fn check(&self, now: Instant) -> Result<()> {
        if self.core.stopping.load(Relaxed) {
            return Ok(());
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started && self.core.shadows().is_empty() {
            return Ok(());
        }
        let missing = if *started { self.threads.check(now, self.core.has_claimable()) } else { self.count };
        for _ in 0..missing {
            let core = self.core.clone();
            self.threads.add(move |thread| core.run_thread(thread))?;
            *started = true;
        }
        Ok(())
    }

    /// How many threads there are.
    pub fn counts(&self) -> ThreadCounts {
        self.threads.counts()
    }

    /// Cancels the runs in progress and joins the threads; one whose run does not end when it is cancelled is detached.
    pub fn stop(&self) {
        self.core.stopping.store(true, Relaxed);
        // Whether they had ended before does not matter: no request waits for a shadow.
        let _ = self.threads.stop(Instant::now());
    }
}

/// How many runs of one shadow happen at the same time at most.
pub fn parallel_runs(budget: &CpuBudget) -> usize {
    (budget.cores().ceil() as usize).max(1)
}

impl ThreadsCore {
    fn shadows(&self) -> MutexGuard<'_, Vec<Arc<ShadowState>>> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_claimable(&self) -> bool {
        self.shadows().iter().any(|shadow| is_claimable(shadow))
    }

    fn run_thread(&self, thread: &RunThread<'_>) {
        lowest_priority();
        let mut busy_at = Instant::now();
        while !self.stopping.load(Relaxed) {
            let now = Instant::now();
            if !self.has_claimable() {
                self.drop_late(now);
                if now >= busy_at + IDLE_TIME && thread.is_surplus() {
                    return;
                }
                std::thread::park_timeout(POLL);
                continue;
            }
            busy_at = now;
            if let Some(wait) = self.budget.wait(now) {
                self.drop_late(now);
                std::thread::park_timeout(wait.min(MAX_WAIT));
            } else if let Some(shadow) = self.claim() {
                self.run_next(thread, &shadow);
            }
        }
    }

    /// Drops copies whose deadline has passed before a run of them could begin: they keep memory and the champion's session.
    fn drop_late(&self, now: Instant) {
        let waiting: Vec<_> =
            self.shadows().iter().filter(|shadow| !shadow.queue.is_empty()).cloned().collect();
        for shadow in waiting {
            let count = |copy: &ShadowCopy| shadow.drops.add(self.late_reason(copy), 1);
            shadow.queue.drop_late(|copy| copy.until() <= now, count);
        }
    }

    /// Why a copy waited until its deadline.
    fn late_reason(&self, copy: &ShadowCopy) -> DropReason {
        if self.budget.has_waited_since(copy.queued_at) { DropReason::CpuBudget } else { DropReason::Late }
    }

    /// The next shadow in turn that has copies and may run another one.
    fn claim(&self) -> Option<Claim> {
        let shadows = self.shadows();
        let first = self.next.fetch_add(1, Relaxed);
        let in_turn = (0..shadows.len()).map(|step| &shadows[first.wrapping_add(step) % shadows.len()]);
        let shadow = in_turn.into_iter().find(|shadow| is_claimable(shadow))?;
        shadow.in_progress.fetch_add(1, Relaxed);
        Some(Claim(shadow.clone()))
    }

    /// Runs the oldest copy of a shadow, and pays for it.
    fn run_next(&self, thread: &RunThread<'_>, Claim(shadow): &Claim) {
        let Some(copy) = shadow.queue.pop() else { return };
        let task = CopyRun { core: self, shadow, runner: PairRunner { thread, counters: &shadow.runs } };
        let wants_floor = self.budget.pay_for(copy.plan.run_threads, &shadow.cpu_ns, || {
            catch_unwind(AssertUnwindSafe(|| task.run(&copy))).unwrap_or_else(|_| {
                shadow.tally().add_error(Code::Internal, false, 0);
                false
            })
        });
        if wants_floor {
            // The champion may have other threads than the shadow.
            self.budget.pay_for(copy.plan.champion_threads, &shadow.cpu_ns, || {
                if catch_unwind(AssertUnwindSafe(|| task.run_floor(&copy))).is_err() {
                    shadow.tally().floor.errors += 1;
                }
            });
        }
    }
}

fn is_claimable(shadow: &ShadowState) -> bool {
    // Read from the state, because the copies of one queue may be of several revisions.
    !shadow.queue.is_empty() && shadow.in_progress.load(Relaxed) < shadow.parallel.load(Relaxed)
}

/// Whether a copy whose deadline has passed spent more of its time waiting than running, so that the version is not at fault.
fn waited_longer(copy: &ShadowCopy, run_ns: u64) -> bool {
    Duration::from_nanos(run_ns) < copy.plan.timeout / 2
}

/// The right to run one copy of a shadow.
struct Claim(Arc<ShadowState>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Relaxed);
    }
}

/// The run of one copy.
struct CopyRun<'a> {
    core: &'a ThreadsCore,
    shadow: &'a ShadowState,
    runner: PairRunner<'a>,
}

impl CopyRun<'_> {
    /// Runs the copy and counts what it finds. Returns whether the champion should be run again.
    fn run(&self, copy: &ShadowCopy) -> bool {
        let until = copy.until();
        if Instant::now() >= until {
            self.drop_late(copy);
            return false;
        }
        let Ok(pairing) = &copy.plan.pairing else {
            self.drop(DropReason::Incompatible);
            return false;
        };
        let outcome = self.runner.run(&copy.plan.model, pairing, &copy.copied.run, until);
        match copy.copied.answer {
            Answer::Outputs => self.count_answered(copy, pairing, outcome),
            Answer::Failed(code) => {
                self.count_failed(copy, code, outcome);
                false
            }
        }
    }

    /// Drops a copy whose deadline has passed because it waited.
    fn drop_late(&self, copy: &ShadowCopy) {
        self.drop(self.core.late_reason(copy));
    }

    fn drop(&self, reason: DropReason) {
        self.shadow.drops.add(reason, 1);
    }

    /// Counts the run for a request that the champion answered. Returns whether the champion should be run again.
    fn count_answered(&self, copy: &ShadowCopy, pairing: &Pairing, outcome: PairOutcome) -> bool {
        match outcome {
            PairOutcome::Answered(run) => return self.compare(copy, pairing, &run),
            // Cancelled because the gateway stops.
            PairOutcome::Failed { .. } if self.core.stopping.load(Relaxed) => self.drop(DropReason::Shutdown),
            PairOutcome::Failed { run_ns, timed_out: true, .. } if waited_longer(copy, run_ns) => {
                self.drop_late(copy)
            }
            PairOutcome::Failed { code, run_ns, timed_out } => {
                self.shadow.tally().add_error(code, timed_out, run_ns);
            }
            PairOutcome::NotReady => self.drop(DropReason::NotReady),
            PairOutcome::Incompatible(mismatch) => {
                self.drop(DropReason::Incompatible);
                self.shadow.tally().last_mismatch = Some(mismatch);
            }
        }
        false
    }

    /// Counts the run for a request that the champion failed on.
    fn count_failed(&self, copy: &ShadowCopy, code: Code, outcome: PairOutcome) {
        let attempt = match outcome {
            PairOutcome::Answered(run) => ShadowAttempt::Answered { run_ns: run.run_ns },
            PairOutcome::Failed { .. } if self.core.stopping.load(Relaxed) => {
                return self.drop(DropReason::Shutdown);
            }
            PairOutcome::Failed { run_ns, timed_out: true, .. } if waited_longer(copy, run_ns) => {
                return self.drop_late(copy);
            }
            PairOutcome::Failed { run_ns, .. } => ShadowAttempt::Failed { run_ns },
            PairOutcome::NotReady => return self.drop(DropReason::NotReady),
            // A failed run may have cost the inputs.
            PairOutcome::Incompatible(_) => ShadowAttempt::InputsLost,
        };
        self.shadow.tally().add_champion_failure(code, attempt);
    }

    /// Compares the answers. Returns whether the champion should be run again.
    fn compare(&self, copy: &ShadowCopy, pairing: &Pairing, run: &AnsweredRun) -> bool {
        let ShadowCopy { copied, plan, slices, .. } = copy;
        let Some(found) = run.compare(pairing, &copied.run) else {
            self.shadow.tally().add_error(Code::Internal, false, run.run_ns);
            return false;
        };
        let shown = (found.differs() && plan.spec.keep_examples > 0).then(|| {
            let request_id = copied.request_id.as_ref().and_then(|id| id.to_str().ok());
            let request = ExampleRequest { at: copied.time(), request_id };
            example(request, pairing, (&copied.run, &run.lease), &found, &plan.redaction)
        });
        // Of a batch its first row.
        let bins = plan.outputs.as_ref().map(|[asked, own]| {
            let asked = output_bins::bins(asked, |_| 0, |index| copied.run.output(index).ok());
            (asked, output_bins::bins(own, |_| 0, |index| run.lease.output(index).ok()))
        });
        let mut tally = self.shadow.tally();
        tally.add_pair(&found, slices, run.run_ns);
        if let (Some(paired), Some((asked, own))) = (&mut tally.paired, bins) {
            paired.add(asked, own);
        }
        if let Some(shown) = shown {
            tally.examples.add(copied.at, shown);
        }
        tally.wants_floor()
    }

    /// Runs the champion again over the same inputs: what it differs from itself, another version may differ from it.
    fn run_floor(&self, copy: &ShadowCopy) {
        let ShadowCopy { copied, plan, .. } = copy;
        let Some(pairing) = &plan.own_pairing else { return };
        let until = Instant::now() + plan.timeout;
        let outcome = self.runner.run(copied.run.model(), pairing, &copied.run, until);
        let found = match &outcome {
            PairOutcome::Answered(run) => run.compare(pairing, &copied.run),
            _ => None,
        };
        let mut tally = self.shadow.tally();
        match (outcome, found) {
            (_, Some(found)) => tally.floor.add(found.differs()),
            (PairOutcome::NotReady, _) => tally.floor.skipped += 1,
            (_, None) => tally.floor.errors += 1,
        }
    }
}
