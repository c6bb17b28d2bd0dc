//! What a worker runs, without a word about what is in it: a request's run, a batch, a probe.
//!
//! A worker of the pool calls [`Task::run`]. A worker of a device calls [`Task::begin`] and later [`Task::finish`], and begins the next
//! task in between. Next: `worker_pool`, `device_workers`.

use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::{Code, Error};

use super::run_slot::Runner;
use crate::queue::{Lane, RunTimes, Waits};

/// The queue of a version.
pub(crate) type TaskQueue = Lane<Arc<dyn Task>>;

/// A piece of work, run once.
pub(crate) trait Task: Waits + Send + Sync {
    /// Whether it is begun while a run before it computes.
    fn goes_ahead(&self) -> bool;

    /// Runs it on a pool thread, unless nobody wants it any more.
    fn run(self: Arc<Self>, runner: &Runner) -> RunTimes;

    /// Begins it on the thread of an instance; false when nothing is to be finished. `idle` says that nothing computes there.
    fn begin(self: Arc<Self>, instance: usize, idle: bool) -> bool;

    /// Ends what [`Task::begin`] began on the thread of that instance.
    fn finish(self: Arc<Self>, instance: usize, begun: Begun) -> RunTimes;
}

/// When a task on a device was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// When its inputs were on their way.
    pub(crate) at: Instant,
    /// When it computed at the earliest: once the run before it had ended.
    pub(crate) since: Instant,
}

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

/// The refusal of a request that waited too long.
pub(crate) fn late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for a thread")
}
