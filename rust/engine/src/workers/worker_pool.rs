//! Pool threads: runs that are too long for an IO thread, and batches.
//!
//! Each version has a queue of its own (`lane`), and versions take turns. Jobs whose requester has left, or whose deadline
//! has passed, are dropped before they cost a run. What does not fit is refused at once.
//!
//! Not here: one run (`job`), how many threads there are (`staff`), the threads of models on a device (`crew`).
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use headgate_core::error::Result;

use super::counters::WorkerCounters;
use super::device_workers::DeviceWorkers;
use super::run_slot::Runner;
use super::task::{Task, TaskQueue};
use super::worker_set::{ThreadCounts, WorkerSet};
use crate::queue::Waits;
use crate::time::wait_until;

/// Threads beyond those that a single version may hold: what others have of the pool, whatever one of them does.
const SPARE: usize = 1;
/// How long a thread that is one too many waits for work before it ends.
const IDLE: Duration = Duration::from_secs(1);
/// Jobs that may wait for a pool thread, for each of them.
const QUEUE_PER_THREAD: usize = 256;
/// Jobs that a version may have waiting whatever others have.
const FEW: usize = 4;

/// The right to run the next piece of a version's work.
enum Token {
    Queue(Arc<TaskQueue>),
    /// The end of the thread that takes it.
    Stop,
}

/// The threads and their queue.
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    /// As many tokens as versions may run at a time, at most one for each piece of work that waits.
    tokens: Sender<Token>,
    taken: Receiver<Token>,
    most_waiting: usize,
    stopping: AtomicBool,
    counters: Arc<WorkerCounters>,
    workers: WorkerSet,
}

impl Pool {
    /// A queue for `threads` threads, without the threads.
    pub fn new(threads: usize) -> Pool {
        let (tokens, taken) = unbounded();
        let most_waiting = threads.max(1) * QUEUE_PER_THREAD;
        let (stopping, counters) = (false.into(), Arc::default());
        let workers = WorkerSet::new(threads.max(1) + SPARE);
        Pool { inner: Arc::new(Inner { tokens, taken, most_waiting, stopping, counters, workers }) }
    }

    /// What models with threads of their own count in.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.inner.counters
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(&self) -> Result<()> {
        (0..self.inner.workers.base()).try_for_each(|_| self.add_thread())
    }

    fn add_thread(&self) -> Result<()> {
        let inner = self.inner.clone();
        self.inner.workers.add(move |runner| inner.work(runner))
    }

    /// Looks at the threads at `now`: cancels runs that are of no use any more, and adds a thread where one does not come back from
    /// its run, or where all have been in a run for a while and work waits.
    pub fn watch(&self, now: Instant) {
        let waits = !self.inner.taken.is_empty();
        for _ in 0..self.inner.workers.look(now, waits) {
            // The system gives no more threads: the next look tries again.
            let _ = self.add_thread();
        }
    }

    /// How many threads there are, and how many of them are held by runs that do not end.
    pub fn threads(&self) -> ThreadCounts {
        self.inner.workers.counts()
    }

    /// How many jobs of a class and those above it a version may have waiting: as many as others leave free, so that one that takes
    /// all it can leaves half to whoever comes, and two a third (Choudhury and Hahne, 1998). Each class leaves half of that to those
    /// above it.
    pub(crate) fn room(&self, class: u8) -> usize {
        let free = self.inner.most_waiting.saturating_sub(self.inner.counters.waiting.load(Relaxed));
        (free >> class).max(FEW)
    }

    /// Puts a task into a version's queue, for a thread of the pool or of the version's own.
    pub(crate) fn push(&self, queue: &Arc<TaskQueue>, own: Option<&DeviceWorkers>, task: Arc<dyn Task>) {
        self.inner.counters.waiting.fetch_add(1, Relaxed);
        match own {
            _ if !queue.push(task) => {}
            Some(workers) => workers.call(queue.clone()),
            None => self.inner.send(Token::Queue(queue.clone())),
        }
    }

    /// The number of jobs and batches waiting.
    pub fn waiting(&self) -> usize {
        self.inner.counters.waiting.load(Relaxed)
    }

    /// Finishes what is queued and joins the threads; true when all were gone by `deadline`. A run that is still in progress then is
    /// cancelled, and one that does not end is left to itself. Stop the submitters first.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.inner.stopping.store(true, Relaxed);
        let joined = self.inner.workers.stop(deadline, || self.inner.send(Token::Stop));
        // The threads of devices end with their models.
        joined & wait_until(deadline, || self.inner.counters.device_threads.load(Relaxed) == 0)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

impl Inner {
    fn send(&self, token: Token) {
        // The channel has no bound, and a receiver in `self`.
        drop(self.tokens.send(token));
    }

    /// A pool thread's life.
    fn work(&self, runner: &Runner) {
        while let Some(Token::Queue(queue)) = self.next() {
            self.turn(queue, runner);
            self.workers.come_back(runner);
        }
        if !self.stopping.load(Relaxed) {
            return;
        }
        // Whatever got behind the word to stop is finished as well; another thread's word is passed on.
        while let Ok(token) = self.taken.try_recv() {
            match token {
                Token::Queue(queue) => self.turn(queue, runner),
                Token::Stop => {
                    self.send(Token::Stop);
                    break;
                }
            }
        }
    }

    /// What a thread does next; `None` ends it: there is one more than need be, and nothing to do for it.
    fn next(&self) -> Option<Token> {
        while self.workers.has_extra() {
            match self.taken.recv_timeout(IDLE) {
                Err(RecvTimeoutError::Timeout) if self.workers.leave() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                token => return token.ok(),
            }
        }
        self.taken.recv().ok()
    }

    /// One piece of a version's work; the rest of it after other versions had their turn.
    fn turn(&self, queue: Arc<TaskQueue>, runner: &Runner) {
        loop {
            let Some(task) = queue.next(Instant::now()) else { return };
            self.counters.waiting.fetch_sub(1, Relaxed);
            let class = task.class();
            let times = task.run(runner);
            if !queue.finish(class, times) {
                return;
            }
            if times.run_ns == 0 {
                // What was of no use is not the version's turn: else what expired in one class would keep those above it waiting.
                continue;
            }
            if !self.stopping.load(Relaxed) {
                return self.send(Token::Queue(queue));
            }
        }
    }
}
