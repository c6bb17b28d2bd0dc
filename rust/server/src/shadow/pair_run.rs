//! Runs a version over the inputs of a recorded pair, and compares what it answers.
//!
//! A run has a deadline of its own. It holds the model in memory while it runs and never brings it there.

use std::sync::Arc;

use headgate_core::error::Code;
use headgate_engine::Instant;
use headgate_engine::{BufferLease, Model, RunCounters, RunThread};

use crate::shadow::comparing::{PairComparison, compare};
use crate::shadow::pair::RecordedPair;
use crate::shadow::pairing::{Mismatch, Pairing};

/// The thread that runs, and what its runs are counted in.
pub struct PairRunner<'a> {
    /// The thread.
    pub thread: &'a RunThread<'a>,
    /// The counters of its runs.
    pub counters: &'a Arc<RunCounters>,
}

/// What became of one run.
pub enum PairOutcome {
    /// It answered; the buffers have its outputs.
    Answered(Box<AnsweredRun>),
    /// It failed with that code, after so many nanoseconds. `timed_out` says that its deadline had passed.
    Failed {
        /// The code.
        code: Code,
        /// How long the run took, in nanoseconds.
        run_ns: u64,
        /// Whether the deadline had passed.
        timed_out: bool,
    },
    /// Its model is out of memory.
    NotReady,
    /// It does not take the inputs of this request.
    Incompatible(Mismatch),
}

/// A run that succeeded.
pub struct AnsweredRun {
    /// The buffers, which have the outputs.
    pub lease: BufferLease,
    /// How long the run took, in nanoseconds.
    pub run_ns: u64,
}

impl PairRunner<'_> {
    /// Runs the model over the inputs of a pair, until `until` at most.
    pub fn run(
        &self,
        model: &Arc<Model>,
        pairing: &Pairing,
        pair: &dyn RecordedPair,
        until: Instant,
    ) -> PairOutcome {
        let Some(loaded) = model.hold_unmarked() else { return PairOutcome::NotReady };
        let mut lease = BufferLease::acquire_separate(loaded);
        if let Err(mismatch) = pairing.fill(pair, &mut lease) {
            return PairOutcome::Incompatible(mismatch);
        }
        let run = self.thread.run(&mut lease, self.counters, until);
        // A run that was not cancelled in time has missed its deadline all the same.
        let timed_out = Instant::now() >= until;
        match run.result {
            Ok(()) if !timed_out => {
                PairOutcome::Answered(Box::new(AnsweredRun { lease, run_ns: run.run_ns }))
            }
            Ok(()) => PairOutcome::Failed { code: Code::DeadlineExceeded, run_ns: run.run_ns, timed_out },
            Err(error) => {
                let code = if error.code == Code::Cancelled { Code::DeadlineExceeded } else { error.code };
                PairOutcome::Failed { code, run_ns: run.run_ns, timed_out }
            }
        }
    }
}

impl AnsweredRun {
    /// Compares the answer with the one that was recorded. `None` if an output of either cannot be read.
    pub fn compare(&self, pairing: &Pairing, pair: &dyn RecordedPair) -> Option<PairComparison> {
        compare(pairing, pair, &self.lease).ok()
    }
}
