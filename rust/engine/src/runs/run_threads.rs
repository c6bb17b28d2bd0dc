//! Threads that run models beside the pool, for runs that no request waits for: shadows and replays.
//!
//! A run has a deadline of its own, at which the next check cancels it. It takes no part in the queue, the placement and the batches of
//! its model. A model on a device runs on the calling thread as well: a session of the device takes runs of several threads.
//!
//! Not here: what is run, in which order, and at which priority (the server's `shadow`).

use std::sync::Arc;

use headgate_core::error::Result;

use super::lease::BufferLease;
use crate::time::Instant;
use crate::time::nanos;
use crate::workers::{RunCounters, RunSlot, ThreadCounts, WorkerSet};

/// Threads beside the pool.
pub struct RunThreads {
    set: Arc<WorkerSet>,
}

/// One of the threads, for the work that it does.
pub struct RunThread<'a> {
    set: &'a WorkerSet,
    slot: &'a RunSlot,
}

/// What a run came to.
pub struct SeparateRun {
    /// Whether it succeeded: `cancelled` if the deadline passed.
    pub result: Result<()>,
    /// How long it took, in nanoseconds.
    pub run_ns: u64,
}

impl RunThreads {
    /// A set of `count` threads with this name, none of which is started. Up to `extra` more replace threads whose runs do not end.
    pub fn new(name: &'static str, count: usize, extra: usize) -> RunThreads {
        RunThreads { set: Arc::new(WorkerSet::new(name, count, extra)) }
    }

    /// Starts a thread that does `work` and ends with it.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub fn add(&self, work: impl FnOnce(&RunThread<'_>) + Send + 'static) -> Result<()> {
        let set = self.set.clone();
        self.set.add(move |slot| work(&RunThread { set: &set, slot }))
    }

    /// Checks the runs at `now`, and cancels those whose deadline has passed. Returns how many threads must be added: in place of those whose
    /// runs do not end, and one if all are busy while work `waits`. The result is 0 before a thread was added.
    pub fn check(&self, now: Instant, waits: bool) -> usize {
        self.set.check(now, waits)
    }

    /// How many threads there are.
    pub fn counts(&self) -> ThreadCounts {
        self.set.counts()
    }

    /// Joins the threads, whose work must have been told to end. Runs that go on at `deadline` are cancelled, and a thread whose run does
    /// not end is detached. The result is true if all threads had ended by `deadline`.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.set.stop(deadline, || {})
    }
}

impl RunThread<'_> {
    /// Runs a model over the inputs in its buffers, on the calling thread. The run counts in `counters` alone.
    pub fn run(&self, lease: &mut BufferLease, counters: &Arc<RunCounters>, until: Instant) -> SeparateRun {
        let guard = self.slot.begin(counters, until);
        let begun = Instant::now();
        let result = lease.run();
        let run_ns = nanos(begun.elapsed());
        drop(guard);
        self.set.run_returned(self.slot);
        SeparateRun { result, run_ns }
    }

    /// Whether the thread must end, because there are more than its set should have.
    pub fn is_surplus(&self) -> bool {
        self.set.has_extra() && self.set.try_retire()
    }
}
