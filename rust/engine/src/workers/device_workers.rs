//! The threads of a model that computes on a device: one for each instance, and two runs of it in the air, so that the inputs
//! of the next are on their way while one computes.
//!
//! ```text
//! take the next --> begin it --> finish the one before --> take the next ...      nothing waits: finish, then wait for work
//! ```
//! A task that does not go ahead is not begun while one computes: a batch that still has room grows for as long as the run before it
//! takes.
//!
//! Next: `worker_pool`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};

use super::counters::WorkerCounters;
use super::task::{Begun, Task, TaskQueue};
use crate::queue::{RunTimes, Waits};

/// Runs of an instance that are in the air at most.
pub(crate) const IN_THE_AIR: usize = 2;

/// The way to a model's threads, which end when this is dropped.
pub(crate) struct DeviceWorkers {
    /// The queue once for each task that may be taken from it.
    tokens: Sender<Arc<TaskQueue>>,
}

impl DeviceWorkers {
    /// Starts a thread for each instance.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub(crate) fn new(instances: usize, counters: &Arc<WorkerCounters>) -> Result<DeviceWorkers> {
        let (tokens, taken) = unbounded();
        for instance in 0..instances {
            let taken = taken.clone();
            let alive = Alive::new(counters.clone());
            std::thread::Builder::new()
                .name(format!("hg-device-{instance}"))
                .spawn(move || {
                    let thread = Thread { instance, counters: &alive.0, landed: Instant::now() };
                    thread.work(&taken);
                })
                .map_err(|error| Error::new(Code::Internal, format!("no thread for a device: {error}")))?;
        }
        Ok(DeviceWorkers { tokens })
    }

    /// Has a thread take a task from the queue.
    pub(crate) fn call(&self, queue: Arc<TaskQueue>) {
        // The threads hold receivers for as long as this lives.
        drop(self.tokens.send(queue));
    }
}

/// A thread that lives, however it ends.
struct Alive(Arc<WorkerCounters>);

impl Alive {
    fn new(counters: Arc<WorkerCounters>) -> Alive {
        counters.device_threads.fetch_add(1, Relaxed);
        Alive(counters)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.device_threads.fetch_sub(1, Relaxed);
    }
}

/// One instance's thread.
struct Thread<'a> {
    instance: usize,
    counters: &'a WorkerCounters,
    /// When the run before ended: the next one computes from then on, whenever it was begun.
    landed: Instant,
}

/// A task that was begun.
struct InFlight {
    queue: Arc<TaskQueue>,
    task: Arc<dyn Task>,
    at: Instant,
    /// Whether there is a run to be finished.
    runs: bool,
}

impl Thread<'_> {
    fn work(mut self, taken: &Receiver<Arc<TaskQueue>>) {
        let mut kept: Vec<Arc<TaskQueue>> = Vec::new();
        let mut flying: Option<InFlight> = None;
        loop {
            let token = match (kept.pop(), &flying) {
                (None, None) => match taken.recv() {
                    Ok(queue) => Some(queue),
                    Err(_) => return,
                },
                (None, Some(_)) => taken.try_recv().ok(),
                (token, _) => token,
            };
            if let Some(queue) = &token
                && flying.is_some()
                && !queue.next_is(|task| task.goes_ahead())
            {
                kept.extend(self.finish(flying.take()));
            }
            let begun = token.and_then(|queue| self.begin(queue, flying.is_none()));
            let landed = if begun.is_some() { std::mem::replace(&mut flying, begun) } else { flying.take() };
            kept.extend(self.finish(landed));
        }
    }

    /// Takes the next task and begins it. A batch waits for rows only while nothing computes.
    fn begin(&self, queue: Arc<TaskQueue>, idle: bool) -> Option<InFlight> {
        let task = queue.next(Instant::now())?;
        self.counters.waiting.fetch_sub(1, Relaxed);
        let runs = task.clone().begin(self.instance, idle);
        Some(InFlight { queue, task, at: Instant::now(), runs })
    }

    /// Ends what was begun; the queue, when more waits in it.
    fn finish(&mut self, begun: Option<InFlight>) -> Option<Arc<TaskQueue>> {
        let InFlight { queue, task, at, runs } = begun?;
        let class = task.class();
        let begun = Begun { at, since: at.max(self.landed) };
        let times = if runs { task.finish(self.instance, begun) } else { RunTimes::default() };
        self.landed = Instant::now();
        queue.finish(class, times).then_some(queue)
    }
}
