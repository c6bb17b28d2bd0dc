//! One request's run on its way through the pool, and what its requester holds of it.
//!
//! Next: `pool`.
#![allow(unsafe_code, reason = "a run in the air reads and writes buffers that somebody else holds")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::cancel::Token;
use headgate_runtime::device::Flight;
use tokio::sync::oneshot;

use crate::lane::Waits;
use crate::lease::Lease;
use crate::pool::{late, nanos};
use crate::runner::Runner;

/// Who waits for a run.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The IO thread.
    pub thread: usize,
    /// When it is of no use any more.
    pub deadline: Instant,
    /// Its class; 0 is run first.
    pub class: u8,
}

/// One request's run.
pub(crate) struct Job {
    lease: Lease,
    deadline: Instant,
    class: u8,
    queued: Instant,
    reply: oneshot::Sender<Outcome>,
    stage: Arc<Stage>,
}

/// How far a run is: it is taken out of the queue once, to be run or because nobody wants it.
#[derive(Default)]
struct Stage {
    stage: AtomicU8,
    /// What cancels it once it has begun, where it can be.
    run: OnceLock<Token>,
}

impl Stage {
    const QUEUED: u8 = 0;
    const BEGUN: u8 = 1;
    const CANCELLED: u8 = 2;

    /// Takes it out of the queue; false when somebody has.
    fn leave(&self, to: u8) -> bool {
        self.stage.compare_exchange(Self::QUEUED, to, AcqRel, Acquire).is_ok()
    }
}

/// A run on its way; resolves to its outcome. Dropping it cancels the run.
pub struct Pending {
    outcome: oneshot::Receiver<Outcome>,
    stage: Arc<Stage>,
}

impl Pending {
    /// Whether the run has begun.
    pub fn has_begun(&self) -> bool {
        self.stage.stage.load(Relaxed) == Stage::BEGUN
    }

    /// Cancels the run; what resolves when it ends, if it has begun.
    pub fn cancel(self) -> Option<oneshot::Receiver<Outcome>> {
        if self.stage.leave(Stage::CANCELLED) {
            return None;
        }
        if let Some(run) = self.stage.run.get() {
            run.cancel();
        }
        Some(self.outcome)
    }
}

impl Future for Pending {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = |_| Error::new(Code::Internal, "a pool thread gave no outcome");
        Pin::new(&mut self.outcome).poll(cx).map_err(lost)
    }
}

/// What became of a job: the buffers come back whatever happened.
pub struct Outcome {
    /// The buffers, outputs filled when `result` is fine.
    pub lease: Lease,
    /// Whether the run succeeded.
    pub result: Result<()>,
    /// How long the job waited for a thread, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run took, in nanoseconds; 0 when there was none.
    pub run_ns: u64,
}

impl Job {
    /// A run for whoever waits, to be queued, and what its requester holds.
    pub(crate) fn new(lease: Lease, waiter: Waiter) -> (Job, Pending) {
        let Waiter { deadline, class, .. } = waiter;
        let (reply, outcome) = oneshot::channel();
        let (queued, stage) = (Instant::now(), Arc::<Stage>::default());
        let job = Job { lease, deadline, class, queued, reply, stage: stage.clone() };
        (job, Pending { outcome, stage })
    }

    /// Runs it, unless nobody wants it any more; how long it waited and ran, in nanoseconds.
    pub(crate) fn run(self, runner: &Runner) -> (u64, u64) {
        let running = runner.begin(self.lease.model(), self.deadline);
        // Before the run begins for others: who leaves from then on cancels it. Set once: a job is run once.
        let _ = self.stage.run.set(running.token());
        let Some(mut job) = self.start() else { return (0, 0) };
        let begun = Instant::now();
        let result = job.lease.run();
        drop(running);
        job.over(result, begun, nanos(begun.elapsed()))
    }

    /// The job, unless nobody wants it any more.
    fn start(self) -> Option<Job> {
        if self.reply.is_closed() || !self.stage.leave(Stage::BEGUN) {
            return None;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.over(Err(late()), now, 0);
            return None;
        }
        Some(self)
    }

    /// Tells the outcome of a run that began then; how long the job waited and ran, in nanoseconds.
    fn over(self, result: Result<()>, begun: Instant, run_ns: u64) -> (u64, u64) {
        let queue_ns = nanos(begun - self.queued);
        // A requester that left meanwhile gets nothing; the lease in the outcome goes home either way.
        drop(self.reply.send(Outcome { lease: self.lease, result, queue_ns, run_ns }));
        (queue_ns, run_ns)
    }

    /// Begins it on the thread of an instance; `None` when nobody wants it any more.
    pub(crate) fn begin(self, instance: usize) -> Option<(Job, Result<Flight>)> {
        let mut job = self.start()?;
        // SAFETY: the job keeps the lease to itself until `land`.
        let flight = unsafe { job.lease.begin(instance) };
        Some((job, flight))
    }

    /// Ends what [`Job::begin`] began at `begun`; how long the job waited and ran, in nanoseconds.
    pub(crate) fn land(
        mut self,
        (flight, instance): (Result<Flight>, usize),
        begun: Instant,
        run_ns: impl FnOnce() -> u64,
    ) -> (u64, u64) {
        let result = flight.and_then(|flight| self.lease.finish(instance, flight));
        self.over(result, begun, run_ns())
    }
}

impl Waits for Job {
    fn came(&self) -> Instant {
        self.queued
    }

    fn until(&self) -> Option<Instant> {
        (!self.reply.is_closed()).then_some(self.deadline)
    }

    fn class(&self) -> u8 {
        self.class
    }
}
