//! The run of a request in a batch.
//!
//! Not here: the batch (`batching`). Next: `submit`.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;

use super::run_result::{BatchedResult, RunResult};
use crate::batching::{Batch, RowRange, RowRangeOutcome};
use crate::models::{LoadedModel, Model};
use crate::workers::Waiter;

/// A request's run in a batch. Its rows are written first, and then [`crate::WorkerPool::submit_batched`] queues the batch.
pub struct BatchedRun {
    range: RowRange,
    model: Arc<Model>,
}

/// The outcome of a request that was run in a batch.
pub struct BatchedRunOutcome {
    /// Its inputs and outputs.
    pub result: Result<RunResult>,
    /// Its inputs after a run that failed. There are no outputs.
    pub failed_inputs: Option<Box<RunResult>>,
    /// How long it waited, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run of its batch took, in nanoseconds; 0 if there was none.
    pub run_ns: u64,
    /// Whether this request represents the run in counters of runs, which count a batch once.
    pub represents_run: bool,
}

impl BatchedRun {
    /// Reserves rows for a request whose inputs have these shapes. The shapes must be such as [`crate::Batcher::accepts`].
    ///
    /// # Errors
    /// `overloaded` if the queue or the batches in use hold as much as they may; `internal` for other shapes.
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

    /// Marks the rows as written. Returns the batch if it must be queued.
    pub(super) fn mark_written(&mut self) -> Option<Arc<Batch>> {
        self.range.mark_written()
    }

    /// Waits for the outcome. Dropping this meanwhile leaves the batch; the last request that leaves cancels the run.
    pub async fn outcome(self) -> BatchedRunOutcome {
        let BatchedRun { range, model } = self;
        let RowRangeOutcome { result, failed_inputs, queue_ns, run_ns, represents_run } =
            range.outcome().await;
        let of_model = |rows| RunResult::Batched(BatchedResult::new(rows, model.clone()));
        let (result, failed_inputs) = (result.map(of_model), failed_inputs.map(of_model).map(Box::new));
        BatchedRunOutcome { result, failed_inputs, queue_ns, run_ns, represents_run }
    }
}
