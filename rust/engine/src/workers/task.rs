//! What a worker runs. The worker does not know whether it is a request's run, a batch or a probe.
//!
//! A worker of the pool calls [`Task::run`]. A worker of a device calls [`Task::begin`] and later [`Task::finish`], and begins the next
//! task in between. Next: `worker_pool`, `device_workers`.

use std::sync::Arc;

use headgate_core::error::{Code, Error};

use super::run_slot::RunSlot;
use crate::queue::{Queued, RunQueue, RunTimes};
use crate::time::Instant;

/// The queue of a version.
pub(crate) type TaskQueue = RunQueue<Arc<dyn Task>>;

/// An item of a queue, which is run once.
pub(crate) trait Task: Queued + Send + Sync {
    /// Whether it may be begun while the run before it computes on the same device.
    fn may_overlap(&self) -> bool;

    /// Runs it on a pool thread, unless its run is of no use any more.
    fn run(self: Arc<Self>, slot: &RunSlot) -> RunTimes;

    /// Begins it on the thread of an instance. If the result is false, there is nothing to finish. `idle` says that the instance is idle.
    fn begin(self: Arc<Self>, instance: usize, idle: bool) -> bool;

    /// Finishes what [`Task::begin`] began on the thread of that instance.
    fn finish(self: Arc<Self>, instance: usize, times: DeviceTimes) -> RunTimes;
}

/// The times of a task on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTimes {
    /// When it was begun.
    pub(crate) begun_at: Instant,
    /// When it computed at the earliest: once the run before it had ended.
    pub(crate) computes_from: Instant,
}

/// What a run needs to know of its requester.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The IO thread that waits for it.
    pub thread: usize,
    /// Until when it is of use.
    pub deadline: Instant,
    /// Its class; class 0 runs first.
    pub class: u8,
}

/// The error of a request that waited for too long.
pub(crate) fn late_error() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for a thread")
}
