//! One request's run in a batch, and what comes out of it.
//!
//! Not here: the batch (`batching`). Next: `submit`.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;

use super::run_result::{BatchedResult, RunResult};
use crate::batching::{Batch, RowRange, RowRangeOutcome};
use crate::models::{LoadedModel, Model};
use crate::workers::Waiter;

/// A request's place in a batch. Its rows are written first, then [`crate::WorkerPool::submit_batched`] has them run.
pub struct BatchedRun {
    range: RowRange,
    model: Arc<Model>,
}

/// The end of a request that was run in a batch.
pub struct BatchedRunOutcome {
    /// Its outputs.
    pub result: Result<RunResult>,
    /// How long it waited, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run took that it was part of, in nanoseconds; 0 when there was none.
    pub run_ns: u64,
    /// Whether it stands for that run where runs are counted.
    pub represents_run: bool,
}

impl BatchedRun {
    /// A place for a request whose inputs have these shapes, which [`crate::Batcher::accepts`].
    ///
    /// # Errors
    /// `overloaded` when too much waits already; `internal` for other shapes.
    pub fn reserve(loaded: LoadedModel, shapes: &[Shape], waiter: Waiter) -> Result<BatchedRun> {
        let batches =
            loaded.open_batches().ok_or_else(|| Error::new(Code::Internal, "a version without batches"))?;
        let range =
            batches.reserve(shapes, waiter, loaded.executable(), || loaded.check_queue(waiter.class))?;
        Ok(BatchedRun { range, model: loaded.into_model() })
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
    pub(super) fn mark_written(&mut self) -> Option<Arc<Batch>> {
        self.range.mark_written()
    }

    /// Waits for the run. Whoever drops this meanwhile leaves the batch; the last one cancels its run.
    pub async fn outcome(self) -> BatchedRunOutcome {
        let BatchedRun { range, model } = self;
        let RowRangeOutcome { result, queue_ns, run_ns, represents_run } = range.outcome().await;
        let result = result.map(|rows| RunResult::Batched(BatchedResult::new(rows, model)));
        BatchedRunOutcome { result, queue_ns, run_ns, represents_run }
    }
}
