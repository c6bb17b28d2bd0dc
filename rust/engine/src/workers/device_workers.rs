//! The threads of a model on a device: one for each instance. Each has two runs in flight, so that the inputs of the next are copied while
//! one computes.
//!
//! ```text
//! take the next --> begin it --> finish the one before --> take the next ...      nothing waits: finish, then wait for a token
//! ```
//! A task that may not overlap is not begun while another computes. So a batch that has room grows for as long as the run before it takes.
//!
//! Next: `worker_pool`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};

use super::counters::WorkerCounters;
use super::task::{DeviceTimes, Task, TaskQueue};
use crate::queue::{Queued, RunTimes};
use crate::time::Instant;

/// The most runs of an instance that are in flight.
pub(crate) const MAX_IN_FLIGHT: usize = 2;

/// The threads of a model; they end when this is dropped.
pub(crate) struct DeviceWorkers {
    /// Carries the queue once for each task that may be taken from it.
    tokens: Sender<Arc<TaskQueue>>,
}

impl DeviceWorkers {
    /// Starts a thread for each instance.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub(crate) fn new(instances: usize, counters: &Arc<WorkerCounters>) -> Result<DeviceWorkers> {
        let (tokens, token_receiver) = unbounded();
        for instance in 0..instances {
            let token_receiver = token_receiver.clone();
            let alive = AliveGuard::new(counters.clone());
            std::thread::Builder::new()
                .name(format!("hg-device-{instance}"))
                .spawn(move || {
                    let thread = DeviceThread { instance, counters: &alive.0, last_end: Instant::now() };
                    thread.run_loop(&token_receiver);
                })
                .map_err(|error| Error::new(Code::Internal, format!("no thread for a device: {error}")))?;
        }
        Ok(DeviceWorkers { tokens })
    }

    /// Has a thread take a task from the queue.
    pub(crate) fn notify(&self, queue: Arc<TaskQueue>) {
        // Each thread has a receiver for as long as this lives.
        drop(self.tokens.send(queue));
    }
}

/// Counts a thread for as long as it lives, even if it panics.
struct AliveGuard(Arc<WorkerCounters>);

impl AliveGuard {
    fn new(counters: Arc<WorkerCounters>) -> AliveGuard {
        counters.device_threads.fetch_add(1, Relaxed);
        AliveGuard(counters)
    }
}

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.device_threads.fetch_sub(1, Relaxed);
    }
}

/// The thread of one instance.
struct DeviceThread<'a> {
    instance: usize,
    counters: &'a WorkerCounters,
    /// When the run before ended. A run computes from then on at the earliest, even if it was begun before.
    last_end: Instant,
}

/// A task that was begun.
struct TaskInFlight {
    queue: Arc<TaskQueue>,
    task: Arc<dyn Task>,
    begun_at: Instant,
    /// Whether the task must be finished.
    has_run: bool,
}

impl DeviceThread<'_> {
    fn run_loop(mut self, token_receiver: &Receiver<Arc<TaskQueue>>) {
        let mut ready_queues: Vec<Arc<TaskQueue>> = Vec::new();
        let mut in_flight: Option<TaskInFlight> = None;
        loop {
            let token = match (ready_queues.pop(), &in_flight) {
                (None, None) => match token_receiver.recv() {
                    Ok(queue) => Some(queue),
                    Err(_) => return,
                },
                (None, Some(_)) => token_receiver.try_recv().ok(),
                (token, _) => token,
            };
            if let Some(queue) = &token
                && in_flight.is_some()
                && !queue.front_matches(|task| task.may_overlap())
            {
                ready_queues.extend(self.finish(in_flight.take()));
            }
            let begun = token.and_then(|queue| self.begin(queue, in_flight.is_none()));
            let ended =
                if begun.is_some() { std::mem::replace(&mut in_flight, begun) } else { in_flight.take() };
            ready_queues.extend(self.finish(ended));
        }
    }

    /// Takes the next task and begins it. `idle` says that nothing computes, so that a batch may wait for rows.
    fn begin(&self, queue: Arc<TaskQueue>, idle: bool) -> Option<TaskInFlight> {
        let task = queue.take_next(Instant::now())?;
        self.counters.waiting.fetch_sub(1, Relaxed);
        let has_run = task.clone().begin(self.instance, idle);
        Some(TaskInFlight { queue, task, begun_at: Instant::now(), has_run })
    }

    /// Finishes a task; returns its queue if more waits in it.
    fn finish(&mut self, begun: Option<TaskInFlight>) -> Option<Arc<TaskQueue>> {
        let TaskInFlight { queue, task, begun_at, has_run } = begun?;
        let class = task.class();
        let device_times = DeviceTimes { begun_at, computes_from: begun_at.max(self.last_end) };
        let times = if has_run { task.finish(self.instance, device_times) } else { RunTimes::default() };
        self.last_end = Instant::now();
        queue.finish(class, times).then_some(queue)
    }
}
