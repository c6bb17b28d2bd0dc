//! The threads of the pool, which run what is too long for an IO thread, and batches.
//!
//! Each version has a queue of its own, and versions take turns. A task of no use, because its requester has left or its deadline has
//! passed, ends before it costs a run.
//!
//! Not here: what is queued (`runs/submit`), how many threads there are (`worker_set`), the threads of devices (`device_workers`).
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use headgate_core::error::Result;

use super::counters::WorkerCounters;
use super::device_workers::DeviceWorkers;
use super::run_slot::RunSlot;
use super::task::{Task, TaskQueue};
use super::worker_set::{ThreadCounts, WorkerSet};
use crate::queue::Queued;
use crate::time::Instant;
use crate::time::wait_until;

/// Threads beyond those that a single version may hold, so that one version cannot hold them all.
const SPARE_THREADS: usize = 1;
/// The most threads beyond the configured number, in place of those whose runs do not end.
const MAX_EXTRA: usize = 16;
/// How long a surplus thread waits for work before it ends.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Tasks that may wait for the pool, for each of its threads.
const QUEUE_PER_THREAD: usize = 256;
/// Tasks that a version may have waiting, however many others wait.
const MIN_ROOM: usize = 4;

/// The right to run the next task of a version.
enum Token {
    Queue(Arc<TaskQueue>),
    /// Ends the thread that takes it.
    Stop,
}

/// The threads of the pool, and the channel that they take tokens from.
pub struct WorkerPool {
    core: Arc<PoolCore>,
}

struct PoolCore {
    /// Carries a token for each run that a version may have in progress, and at most one for each task that waits.
    tokens: Sender<Token>,
    token_receiver: Receiver<Token>,
    max_waiting: usize,
    stopping: AtomicBool,
    counters: Arc<WorkerCounters>,
    workers: WorkerSet,
}

impl WorkerPool {
    /// A pool for `threads` threads, none of which is started.
    pub fn new(threads: usize) -> WorkerPool {
        let (tokens, token_receiver) = unbounded();
        let max_waiting = threads.max(1) * QUEUE_PER_THREAD;
        let (stopping, counters) = (false.into(), Arc::default());
        let workers = WorkerSet::new("hg-pool", threads.max(1) + SPARE_THREADS, MAX_EXTRA);
        WorkerPool {
            core: Arc::new(PoolCore { tokens, token_receiver, max_waiting, stopping, counters, workers }),
        }
    }

    /// The counters that the workers of devices share with the pool.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.core.counters
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub fn start(&self) -> Result<()> {
        (0..self.core.workers.base_count()).try_for_each(|_| self.add_thread())
    }

    fn add_thread(&self) -> Result<()> {
        let core = self.core.clone();
        self.core.workers.add(move |slot| core.run_worker(slot))
    }

    /// Checks the threads at `now`. Runs of no use are cancelled. A thread is added for each whose run does not end, and one if all have been
    /// busy for a while and tasks wait.
    pub fn check_threads(&self, now: Instant) {
        let waits = !self.core.token_receiver.is_empty();
        for _ in 0..self.core.workers.check(now, waits) {
            // If the system gives no more threads, the next check tries again.
            let _ = self.add_thread();
        }
    }

    /// How many threads there are, and how many of them are held by stuck runs.
    pub fn thread_counts(&self) -> ThreadCounts {
        self.core.workers.counts()
    }

    /// How many tasks of a class and of those above it a version may have waiting: as many as others leave free. So a version that takes all
    /// it can leaves half to the next, and two of them leave a third (Choudhury and Hahne, 1998). Each class leaves half of its room to
    /// the classes above it.
    pub(crate) fn queue_room(&self, class: u8) -> usize {
        let free = self.core.max_waiting.saturating_sub(self.core.counters.waiting.load(Relaxed));
        (free >> class).max(MIN_ROOM)
    }

    /// Adds a task to the queue of a version, for a thread of the pool or of the version's device.
    pub(crate) fn push(
        &self,
        queue: &Arc<TaskQueue>,
        device_workers: Option<&DeviceWorkers>,
        task: Arc<dyn Task>,
    ) {
        self.core.counters.waiting.fetch_add(1, Relaxed);
        match device_workers {
            _ if !queue.push(task) => {}
            Some(workers) => workers.notify(queue.clone()),
            None => self.core.send(Token::Queue(queue.clone())),
        }
    }

    /// The number of tasks that wait.
    pub fn waiting_tasks(&self) -> usize {
        self.core.counters.waiting.load(Relaxed)
    }

    /// Finishes what is queued and joins the threads. The result is true if all had ended by `deadline`. A run in progress is cancelled then,
    /// and a thread whose run does not end is detached. Nothing may be submitted any more when this is called.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.core.stopping.store(true, Relaxed);
        let joined = self.core.workers.stop(deadline, || self.core.send(Token::Stop));
        // The threads of devices end with their models.
        joined & wait_until(deadline, || self.core.counters.device_threads.load(Relaxed) == 0)
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

impl PoolCore {
    fn send(&self, token: Token) {
        // The channel has no bound, and `self` has a receiver.
        drop(self.tokens.send(token));
    }

    /// Runs tasks until the pool stops or the thread is surplus.
    fn run_worker(&self, slot: &RunSlot) {
        while let Some(Token::Queue(queue)) = self.next_token() {
            self.run_turn(queue, slot);
            self.workers.run_returned(slot);
        }
        if !self.stopping.load(Relaxed) {
            return;
        }
        // Tasks behind the stop token are finished as well. The stop token of another thread is passed on.
        while let Ok(token) = self.token_receiver.try_recv() {
            match token {
                Token::Queue(queue) => self.run_turn(queue, slot),
                Token::Stop => {
                    self.send(Token::Stop);
                    break;
                }
            }
        }
    }

    /// The next token; `None` if the calling thread is surplus and idle, and must end.
    fn next_token(&self) -> Option<Token> {
        while self.workers.has_extra() {
            match self.token_receiver.recv_timeout(IDLE_TIME) {
                Err(RecvTimeoutError::Timeout) if self.workers.try_retire() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                token => return token.ok(),
            }
        }
        self.token_receiver.recv().ok()
    }

    /// Runs one task of a version. The next one runs after other versions had their turn.
    fn run_turn(&self, queue: Arc<TaskQueue>, slot: &RunSlot) {
        loop {
            let Some(task) = queue.take_next(Instant::now()) else { return };
            self.counters.waiting.fetch_sub(1, Relaxed);
            let class = task.class();
            let times = task.run(slot);
            if !queue.finish(class, times) {
                return;
            }
            if times.run_ns == 0 {
                // A task that did not run is not the version's turn. Otherwise the expired tasks of one class would delay the classes above it.
                continue;
            }
            if !self.stopping.load(Relaxed) {
                return self.send(Token::Queue(queue));
            }
        }
    }
}
