//! One request's run in a batch, and what comes out of it.
//!
//! Not here: the batch (`batching`). Next: `submit`.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;

use super::run_result::{Ran, Together};
use crate::batching::{Batch, Finished, RowRange};
use crate::models::{Model, Warm};
use crate::workers::Waiter;

/// A request's place in a batch. Its rows are written first, then [`crate::Pool::ready`] has them run.
pub struct Seat {
    range: RowRange,
    model: Arc<Model>,
}

/// The end of a request that was run in a batch.
pub struct Done {
    /// Its outputs.
    pub result: Result<Ran>,
    /// How long it waited, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run took that it was part of, in nanoseconds; 0 when there was none.
    pub run_ns: u64,
    /// Whether it stands for that run where runs are counted.
    pub counts: bool,
}

impl Seat {
    /// A place for a request whose inputs have these shapes, which [`crate::Batcher::takes`].
    ///
    /// # Errors
    /// `overloaded` when too much waits already; `internal` for other shapes.
    pub fn take(warm: Warm, shapes: &[Shape], waiter: Waiter) -> Result<Seat> {
        let batches =
            warm.open_batches().ok_or_else(|| Error::new(Code::Internal, "a version without batches"))?;
        let range = batches.reserve(shapes, waiter, warm.executable(), || warm.admit(waiter.class))?;
        Ok(Seat { range, model: warm.into_model() })
    }

    /// The model.
    pub(super) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The batch.
    pub fn batch(&self) -> &Arc<Batch> {
        self.range.batch()
    }

    /// The memory of an input's rows, to be written.
    pub fn input_mut(&mut self, index: usize) -> &mut [u8] {
        self.range.input_mut(index)
    }

    /// The rows are written; the batch, when nobody has handed it to a worker yet.
    pub(super) fn ready(&mut self) -> Option<Arc<Batch>> {
        self.range.ready()
    }

    /// Waits for the run. Whoever drops this meanwhile leaves the batch; the last one cancels its run.
    pub async fn done(self) -> Done {
        let Seat { range, model } = self;
        let Finished { result, queue_ns, run_ns, counts } = range.done().await;
        let result = result.map(|rows| Ran::Together(Together::new(rows, model)));
        Done { result, queue_ns, run_ns, counts }
    }
}
