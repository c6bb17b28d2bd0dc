//! From a request's inputs, or a question, to a task in its version's queue.
//!
//! Not here: what the threads do with it (`workers`). Next: back to the server.

use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};

use super::batched_run::Seat;
use super::lease::Lease;
use super::probe_run::Probe;
use super::single_run::{Job, Pending};
use crate::models::{Asked, Model};
use crate::workers::{Pool, Task, Waiter};

impl Pool {
    /// Hands a run over.
    ///
    /// # Errors
    /// `overloaded` when too many wait, or the version sheds; the lease goes home.
    pub fn submit(&self, lease: Lease, waiter: Waiter) -> Result<Pending> {
        let (class, model) = (waiter.class, lease.model().clone());
        if model.queue().waiting(class) >= self.room(class) {
            return Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"));
        }
        model.admit(class)?;
        let (job, pending) = Job::new(lease, waiter);
        self.queue(&model, job);
        Ok(pending)
    }

    /// A request's rows are in its batch: hands the batch over, unless somebody has. Batches are bounded where they are made.
    pub fn ready(&self, seat: &mut Seat) {
        if let Some(batch) = seat.ready() {
            self.queue(seat.model(), batch);
        }
    }

    /// Whether a model works, as far as that is known, else a probe is on its way. `None` for a model of which no input is known
    /// that it takes.
    ///
    /// A probe is never refused: there is one for each model at most.
    pub fn probe(&self, model: &Arc<Model>) -> Option<Asked> {
        if !model.probes().are_possible() {
            return None;
        }
        let asked = model.probes().ask(Instant::now());
        if matches!(asked, Asked::Begun(_)) {
            self.queue(model, Arc::new(Probe::new(model.clone())));
        }
        Some(asked)
    }

    fn queue(&self, model: &Model, task: Arc<dyn Task>) {
        self.push(model.queue(), model.device_workers(), task);
    }
}
