//! How many threads a set has, such as the pool: the configured number, and more for a while if some do not return from their runs.
//!
//! Not here: what the threads do (`worker_pool`), how a run is cancelled (`run_slot`). Next: `worker_pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};

use super::run_slot::{RunHealth, RunSlot};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::time::Instant;
use crate::time::{join_until, wait_until};

/// How long all threads must have been in their runs, while tasks wait, before one is added.
const ALL_BUSY_FOR: Duration = Duration::from_millis(100);
/// How long the pool waits at its end for runs that it has cancelled.
const CANCEL_GRACE: Duration = Duration::from_millis(250);

/// The threads of the pool, or of another set.
pub(crate) struct WorkerSet {
    /// What the names of the threads begin with.
    name: &'static str,
    /// The configured number.
    base_count: usize,
    /// The most threads beyond the configured number.
    max_extra: usize,
    threads: Mutex<Vec<WorkerThread>>,
    /// Threads that were not replaced.
    active: AtomicUsize,
    spawned_count: AtomicUsize,
}

struct WorkerThread {
    slot: Arc<RunSlot>,
    handle: JoinHandle<()>,
}

/// The number of threads of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadCounts {
    /// All threads.
    pub all: usize,
    /// Threads that are held by a run that was cancelled and does not end.
    pub stuck: usize,
    /// Whether no further thread can be replaced.
    pub exhausted: bool,
}

impl WorkerSet {
    /// A set for `base_count` threads, none of which is started, and for at most `max_extra` more.
    pub(crate) fn new(name: &'static str, base_count: usize, max_extra: usize) -> WorkerSet {
        WorkerSet {
            name,
            base_count,
            max_extra,
            threads: Mutex::default(),
            active: AtomicUsize::new(0),
            spawned_count: AtomicUsize::new(0),
        }
    }

    /// The configured number of threads.
    pub(crate) fn base_count(&self) -> usize {
        self.base_count
    }

    /// Starts a thread that does `work`.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub(crate) fn add(&self, work: impl FnOnce(&RunSlot) + Send + 'static) -> Result<()> {
        let (slot, index) = (Arc::<RunSlot>::default(), self.spawned_count.fetch_add(1, Relaxed));
        let (thread_slot, name) = (slot.clone(), format!("{}-{index}", self.name));
        let spawned = std::thread::Builder::new().name(name).spawn(move || work(&thread_slot));
        let handle = spawned
            .map_err(|error| Error::new(Code::Internal, format!("no thread {}: {error}", self.name)))?;
        self.active.fetch_add(1, Relaxed);
        self.lock_threads().push(WorkerThread { slot, handle });
        Ok(())
    }

    /// Checks every thread at `now`; returns how many must be added. `waits` says whether tasks wait.
    pub(crate) fn check(&self, now: Instant, waits: bool) -> usize {
        let mut threads = self.lock_threads();
        threads.retain(|thread| !thread.handle.is_finished());
        let mut all_busy = !threads.is_empty();
        for WorkerThread { slot, .. } in &*threads {
            match slot.check(now) {
                RunHealth::Stuck { new: false } => {}
                RunHealth::Stuck { new: true } => {
                    slot.mark_replaced();
                    self.active.fetch_sub(1, Relaxed);
                }
                RunHealth::Healthy(since) => {
                    all_busy &= since.is_some_and(|begun| now >= begun + ALL_BUSY_FOR)
                }
            }
        }
        let missing = self.base_count.saturating_sub(self.active.load(Relaxed));
        let wanted = if missing == 0 && waits && all_busy { 1 } else { missing };
        // Before the start there are no threads to check.
        if threads.is_empty() {
            0
        } else {
            wanted.min((self.base_count + self.max_extra).saturating_sub(threads.len()))
        }
    }

    /// Records that a run has returned. If its thread was replaced, it counts again.
    pub(crate) fn run_returned(&self, slot: &RunSlot) {
        if slot.take_replaced() {
            self.active.fetch_add(1, Relaxed);
        }
    }

    /// Whether there are more threads than configured.
    pub(crate) fn has_extra(&self) -> bool {
        self.active.load(Relaxed) > self.base_count
    }

    /// Whether the calling thread must end, because there are more threads than configured.
    pub(crate) fn try_retire(&self) -> bool {
        let fewer = |active: usize| (active > self.base_count).then(|| active - 1);
        self.active.fetch_update(Relaxed, Relaxed, fewer).is_ok()
    }

    /// How many threads there are.
    pub(crate) fn counts(&self) -> ThreadCounts {
        let all = self.lock_threads().iter().filter(|thread| !thread.handle.is_finished()).count();
        let stuck = all.saturating_sub(self.active.load(Relaxed));
        ThreadCounts { all, stuck, exhausted: stuck >= self.max_extra }
    }

    /// Calls `send_stop` for each thread and joins those that end by `deadline`. The runs of the others are cancelled. The result is true if
    /// all ended in time.
    pub(crate) fn stop(&self, deadline: Instant, mut send_stop: impl FnMut()) -> bool {
        let threads = std::mem::take(&mut *self.lock_threads());
        threads.iter().for_each(|_| send_stop());
        let mut unfinished = Vec::new();
        for WorkerThread { slot, handle } in threads {
            if !wait_until(deadline, || handle.is_finished()) {
                slot.cancel();
                unfinished.push(handle);
            }
        }
        let all_ended = unfinished.is_empty();
        let last_deadline = Instant::now() + CANCEL_GRACE;
        // A thread whose run does not end is detached.
        unfinished.into_iter().for_each(|handle| {
            let _ = join_until(handle, last_deadline);
        });
        all_ended
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<WorkerThread>> {
        lock(&self.threads)
    }
}
