//! The batches of a version that take rows: one for each kind of row.
//!
//! Next: `row_range`, `batch`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;

use super::batch::{Batch, BatchContext, BatchWaker};
use super::batch_kind::BatchKind;
use super::batcher::Batcher;
use super::row_range::RowRange;
use crate::compute::ExecutableHandle;
use crate::shapes::with_rows;
use crate::time::Instant;
use crate::workers::{RunCounters, Waiter};

/// The most kinds of rows that a version has open batches for.
const MAX_KINDS: usize = 16;

/// The open batches of a version.
pub(crate) struct OpenBatches {
    batcher: Arc<Batcher>,
    runs: Arc<RunCounters>,
    batch_waker: Arc<dyn BatchWaker>,
    open: Mutex<Vec<(BatchKind, Weak<Batch>)>>,
}

impl OpenBatches {
    /// Open batches for a version; there are none yet.
    pub(crate) fn new(
        batcher: Batcher,
        runs: Arc<RunCounters>,
        batch_waker: Arc<dyn BatchWaker>,
    ) -> OpenBatches {
        OpenBatches { batcher: Arc::new(batcher), runs, batch_waker, open: Mutex::default() }
    }

    /// Sizes, slabs and costs.
    pub(crate) fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// Reserves rows for a request whose inputs have these shapes: in the open batch of their kind, or else in a new one if `admit` allows it.
    ///
    /// # Errors
    /// As `admit`. `overloaded` if the batches in use hold as much as they may. `internal` for shapes that [`Batcher::accepts`] does not.
    pub(crate) fn reserve(
        &self,
        shapes: &[Shape],
        waiter: Waiter,
        executable: &ExecutableHandle,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<RowRange> {
        if self.batcher.is_off() || !self.batcher.accepts(shapes) {
            return Err(Error::new(Code::Internal, "a request that cannot be part of a batch"));
        }
        let rows = shapes.first().map_or(1, Shape::rows);
        let now = Instant::now();
        self.batcher.record_arrival(rows, now);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open_batch = open
            .iter()
            .find(|(kind, _)| kind.matches(shapes, waiter.class))
            .and_then(|(_, batch)| batch.upgrade());
        if let Some(range) = open_batch.and_then(|batch| RowRange::reserve(batch, rows, waiter, now)) {
            return Ok(range);
        }
        admit()?;
        let row_shapes = shapes.iter().map(|shape| with_rows(shape, 1)).collect::<Result<_>>()?;
        let kind = BatchKind { row_shapes, class: waiter.class };
        let batch = Arc::new(Batch::new(self.context(executable), &kind, rows)?);
        let range = RowRange::reserve(batch.clone(), rows, waiter, now);
        let range = range.ok_or_else(|| Error::new(Code::Internal, "a new batch has no room"))?;
        open.retain(|(known, batch)| *known != kind && batch.strong_count() > 0);
        if open.len() < MAX_KINDS {
            // If there are more kinds, each request of them gets a batch of its own.
            open.push((kind, Arc::downgrade(&batch)));
        }
        Ok(range)
    }

    fn context(&self, executable: &ExecutableHandle) -> BatchContext {
        BatchContext {
            executable: executable.clone(),
            batcher: self.batcher.clone(),
            runs: self.runs.clone(),
            batch_waker: self.batch_waker.clone(),
        }
    }
}
