//! The way into a version's queue, for a request's run, a batch or a probe.
//!
//! Not here: what the workers do with it (`workers`). Next: back to the server.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};

use super::batched_run::BatchedRun;
use super::lease::BufferLease;
use super::probe_run::ProbeRun;
use super::single_run::{PendingRun, SingleRun};
use crate::models::{Model, ProbeAnswer};
use crate::time::Instant;
use crate::workers::{Task, Waiter, WorkerPool};

impl WorkerPool {
    /// Queues a run.
    ///
    /// # Errors
    /// `overloaded` if too much waits, or if the version sheds. The buffers return to their pool.
    pub fn submit(&self, lease: BufferLease, waiter: Waiter) -> Result<PendingRun> {
        let (class, model) = (waiter.class, lease.model().clone());
        if model.queue().waiting(class) >= self.queue_room(class) {
            return Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"));
        }
        model.check_queue(class)?;
        let (run, pending) = SingleRun::new(lease, waiter);
        self.enqueue(&model, run);
        Ok(pending)
    }

    /// Marks the rows of a request as written, and queues its batch, unless another request has. A batch is bounded when it is made.
    pub fn submit_batched(&self, batched: &mut BatchedRun) {
        if let Some(batch) = batched.mark_written() {
            self.enqueue(batched.model(), batch);
        }
    }

    /// Whether a model works. If no recent probe knows, one is queued. `None` for a model of which no input is known that it takes.
    ///
    /// A probe is never refused, because each model has one at most.
    pub fn probe(&self, model: &Arc<Model>) -> Option<ProbeAnswer> {
        if !model.probes().are_possible() {
            return None;
        }
        let answer = model.probes().ask(Instant::now());
        if matches!(answer, ProbeAnswer::Started(_)) {
            self.enqueue(model, Arc::new(ProbeRun::new(model.clone())));
        }
        Some(answer)
    }

    fn enqueue(&self, model: &Model, task: Arc<dyn Task>) {
        self.push(model.queue(), model.device_workers(), task);
    }
}
