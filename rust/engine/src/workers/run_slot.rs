//! What a pool thread runs, until when, and whether the run ends after it was cancelled.
//!
//! A requester cancels its run when it stops waiting. The slot covers the rest. A run that goes on after its time is cancelled by the
//! next check. One that goes on for a second after that is stuck: it is counted, and the pool starts another thread in place of its own.
//!
//! Not here: the threads (`worker_set`), how a call into the runtime ends (`headgate_runtime::cancel`). Next: `worker_pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use headgate_runtime::cancel::{CancelScope, CancelToken};

use crate::sync::{Mutex, MutexGuard, lock};
use crate::time::Instant;

/// How long a run may go on after it was cancelled before it counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Counts the runs of a model: those on pool threads, those that were cancelled and those that are stuck.
#[derive(Debug, Default)]
pub struct RunCounters {
    in_progress: AtomicUsize,
    cancelled: AtomicU64,
    stuck: AtomicUsize,
}

impl RunCounters {
    /// Runs in progress on pool threads.
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Relaxed)
    }

    /// Runs that were cancelled, because nothing waited for them any more or because they held an IO thread for too long.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    /// Runs in progress that were cancelled and do not end.
    pub fn stuck(&self) -> usize {
        self.stuck.load(Relaxed)
    }

    /// Counts a run that was cancelled.
    pub fn count_cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// Counts a run that does not end.
    pub fn begin_stuck(&self) {
        self.stuck.fetch_add(1, Relaxed);
    }

    /// Uncounts a stuck run that has ended after all.
    pub fn end_stuck(&self) {
        self.stuck.fetch_sub(1, Relaxed);
    }
}

/// The run of one pool thread.
#[derive(Default)]
pub(crate) struct RunSlot {
    current: Mutex<Option<CurrentRun>>,
    /// Whether another thread was started in place of this one.
    replaced: AtomicBool,
}

/// The run in progress.
struct CurrentRun {
    token: CancelToken,
    counters: Arc<RunCounters>,
    begun_at: Instant,
    until: Instant,
    cancelled_at: Option<Instant>,
    stuck: bool,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunHealth {
    /// The thread runs nothing, or a run that began then.
    Healthy(Option<Instant>),
    /// The run does not end. `new` says that this check found it first.
    Stuck { new: bool },
}

impl RunSlot {
    /// Begins a run on the calling thread. It is of use until `until`.
    pub(crate) fn begin(&self, counters: &Arc<RunCounters>, until: Instant) -> RunGuard<'_> {
        let scope = CancelScope::begin();
        let (token, counters, begun_at) = (scope.token(), counters.clone(), Instant::now());
        counters.in_progress.fetch_add(1, Relaxed);
        *self.lock_current() =
            Some(CurrentRun { token, counters, begun_at, until, cancelled_at: None, stuck: false });
        RunGuard { slot: self, scope }
    }

    /// Checks the run at `now`, and cancels it if it is of no use any more.
    pub(crate) fn check(&self, now: Instant) -> RunHealth {
        let mut current = self.lock_current();
        let Some(run) = &mut *current else { return RunHealth::Healthy(None) };
        if now >= run.until {
            run.token.cancel();
        }
        if run.cancelled_at.is_none() && run.token.is_cancelled() {
            run.cancelled_at = Some(now);
        }
        if run.cancelled_at.is_none_or(|at| now < at + STUCK_AFTER) {
            return RunHealth::Healthy(Some(run.begun_at));
        }
        let new = !std::mem::replace(&mut run.stuck, true);
        if new {
            run.counters.begin_stuck();
        }
        RunHealth::Stuck { new }
    }

    /// Cancels the run, whether or not something waits for it.
    pub(crate) fn cancel(&self) {
        if let Some(run) = &*self.lock_current() {
            run.token.cancel();
        }
    }

    /// Records that another thread was started in place of this one.
    pub(crate) fn mark_replaced(&self) {
        self.replaced.store(true, Relaxed);
    }

    /// Whether another thread was started in place of this one; resets the record.
    pub(crate) fn take_replaced(&self) -> bool {
        self.replaced.load(Relaxed) && self.replaced.swap(false, Relaxed)
    }

    fn lock_current(&self) -> MutexGuard<'_, Option<CurrentRun>> {
        lock(&self.current)
    }
}

/// Ends a run when it is dropped.
pub(crate) struct RunGuard<'a> {
    slot: &'a RunSlot,
    scope: CancelScope,
}

impl RunGuard<'_> {
    /// What cancels the run.
    pub(crate) fn token(&self) -> CancelToken {
        self.scope.token()
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let Some(run) = self.slot.lock_current().take() else { return };
        run.counters.in_progress.fetch_sub(1, Relaxed);
        if self.scope.is_cancelled() {
            run.counters.count_cancelled();
        }
        if run.stuck {
            run.counters.end_stuck();
        }
    }
}

/// The worker on which a task runs.
#[derive(Clone, Copy)]
pub(crate) enum Executor<'a> {
    /// The thread of an instance of a device, where nothing is cancelled.
    Instance(usize),
    /// A thread of the pool.
    PoolThread(&'a RunSlot),
}

impl<'a> Executor<'a> {
    /// The instance, on a device.
    pub(crate) fn instance(self) -> Option<usize> {
        match self {
            Executor::Instance(instance) => Some(instance),
            Executor::PoolThread(_) => None,
        }
    }

    /// Begins a run that is of use until `until`, on a pool thread.
    pub(crate) fn begin(self, counters: &Arc<RunCounters>, until: Instant) -> Option<RunGuard<'a>> {
        match self {
            Executor::Instance(_) => None,
            Executor::PoolThread(slot) => Some(slot.begin(counters, until)),
        }
    }
}
