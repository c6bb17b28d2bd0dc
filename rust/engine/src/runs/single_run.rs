//! The run of one request in a queue, and the handle of its requester.
//!
//! Next: `submit`.
#![allow(unsafe_code, reason = "a run in flight reads and writes buffers that another owner holds")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::cancel::CancelToken;
use headgate_runtime::device::InFlightRun;
use tokio::sync::oneshot;

use super::lease::BufferLease;
use crate::queue::{Queued, RunTimes};
use crate::time::Instant;
use crate::time::nanos;
use crate::workers::{DeviceTimes, RunSlot, Task, Waiter, late_error};

/// The run of one request, shared by the queue and the requester.
pub(super) struct SingleRun {
    deadline: Instant,
    class: u8,
    queued_at: Instant,
    /// Whether it is queued, begun or cancelled. It leaves the queue once.
    stage: AtomicU8,
    /// Cancels the run once it has begun. On a device nothing is cancelled.
    token: OnceLock<CancelToken>,
    /// What is run, until the outcome is sent. Only a worker takes it.
    work: Mutex<Option<SingleRunWork>>,
}

struct SingleRunWork {
    lease: BufferLease,
    reply: oneshot::Sender<RunOutcome>,
    /// The run in flight, on a device.
    flight: Option<Result<InFlightRun>>,
}

const QUEUED: u8 = 0;
const BEGUN: u8 = 1;
const CANCELLED: u8 = 2;

/// A queued run; resolves to its outcome. Dropping this takes the run out of the queue.
pub struct PendingRun {
    /// `None` after [`PendingRun::cancel`].
    outcome: Option<oneshot::Receiver<RunOutcome>>,
    run: Arc<SingleRun>,
}

impl PendingRun {
    /// Whether the run has begun.
    pub fn has_begun(&self) -> bool {
        self.run.stage.load(Relaxed) == BEGUN
    }

    /// Cancels the run. If it has begun, the returned receiver gets its outcome.
    pub fn cancel(mut self) -> Option<oneshot::Receiver<RunOutcome>> {
        if self.run.leave_queue(CANCELLED) {
            return None;
        }
        if let Some(run) = self.run.token.get() {
            run.cancel();
        }
        self.outcome.take()
    }
}

impl Drop for PendingRun {
    fn drop(&mut self) {
        // A run that has begun goes on.
        self.run.leave_queue(CANCELLED);
    }
}

impl Future for PendingRun {
    type Output = Result<RunOutcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = |_| Error::new(Code::Internal, "a pool thread gave no outcome");
        let outcome = self.outcome.as_mut().expect("a run that was cancelled is not polled");
        Pin::new(outcome).poll(cx).map_err(lost)
    }
}

/// The outcome of a run. The buffers come back in any case.
pub struct RunOutcome {
    /// The buffers. They hold the outputs if `result` is `Ok`.
    pub lease: BufferLease,
    /// Whether the run succeeded.
    pub result: Result<()>,
    /// How long the run was queued, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run took, in nanoseconds; 0 if there was none.
    pub run_ns: u64,
}

impl SingleRun {
    /// A run to be queued, and the handle of its requester.
    pub(super) fn new(lease: BufferLease, waiter: Waiter) -> (Arc<SingleRun>, PendingRun) {
        let Waiter { deadline, class, .. } = waiter;
        let (reply, outcome) = oneshot::channel();
        let run = Arc::new(SingleRun {
            deadline,
            class,
            queued_at: Instant::now(),
            stage: AtomicU8::new(QUEUED),
            token: OnceLock::new(),
            work: Mutex::new(Some(SingleRunWork { lease, reply, flight: None })),
        });
        (run.clone(), PendingRun { outcome: Some(outcome), run })
    }

    /// Takes it out of the queue; false if it has left before.
    fn leave_queue(&self, to: u8) -> bool {
        self.stage.compare_exchange(QUEUED, to, AcqRel, Acquire).is_ok()
    }

    /// What is run, once.
    fn take_work(&self) -> Option<SingleRunWork> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is run, unless nothing waits for it or its deadline has passed.
    fn start(&self, work: SingleRunWork) -> Option<SingleRunWork> {
        if !self.leave_queue(BEGUN) {
            return None;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.send_outcome(work, Err(late_error()), now, 0);
            return None;
        }
        Some(work)
    }

    /// Sends the outcome of a run that began at `begun`.
    fn send_outcome(&self, work: SingleRunWork, result: Result<()>, begun: Instant, run_ns: u64) -> RunTimes {
        let queue_ns = nanos(begun - self.queued_at);
        // If the requester has left, the outcome is dropped, and the buffers return to their pool.
        drop(work.reply.send(RunOutcome { lease: work.lease, result, queue_ns, run_ns }));
        RunTimes { wait_ns: queue_ns, run_ns }
    }
}

impl Queued for SingleRun {
    fn queued_at(&self) -> Instant {
        self.queued_at
    }

    fn useful_until(&self) -> Option<Instant> {
        (self.stage.load(Relaxed) == QUEUED).then_some(self.deadline)
    }

    fn class(&self) -> u8 {
        self.class
    }
}

impl Task for SingleRun {
    fn may_overlap(&self) -> bool {
        true
    }

    fn run(self: Arc<Self>, slot: &RunSlot) -> RunTimes {
        let Some(work) = self.take_work() else { return RunTimes::default() };
        let guard = slot.begin(work.lease.model().run_counters(), self.deadline);
        // Set before the run leaves the queue: a requester that leaves later must be able to cancel it. A run is run once, so this succeeds.
        let _ = self.token.set(guard.token());
        let Some(mut work) = self.start(work) else { return RunTimes::default() };
        let begun = Instant::now();
        let result = work.lease.run();
        drop(guard);
        self.send_outcome(work, result, begun, nanos(begun.elapsed()).max(1))
    }

    fn begin(self: Arc<Self>, instance: usize, _idle: bool) -> bool {
        let Some(mut work) = self.take_work().and_then(|work| self.start(work)) else { return false };
        // SAFETY: nothing touches the lease before `finish`.
        work.flight = Some(unsafe { work.lease.begin(instance) });
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        true
    }

    fn finish(self: Arc<Self>, instance: usize, times: DeviceTimes) -> RunTimes {
        let Some(mut work) = self.take_work() else { return RunTimes::default() };
        let flight = work.flight.take().expect("a run that is finished was begun");
        let result = flight.and_then(|flight| work.lease.finish(instance, flight));
        self.send_outcome(work, result, times.begun_at, nanos(times.computes_from.elapsed()).max(1))
    }
}
