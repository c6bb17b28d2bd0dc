//! The batches of a version that take rows: one for each kind of row.
//!
//! Next: `row_range`, `batch`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;

use super::batch::{Batch, BatchedVersion, Doorbell};
use super::batch_kind::Kind;
use super::batcher::Batcher;
use super::row_range::RowRange;
use crate::compute::ExecutableHandle;
use crate::shapes::with_rows;
use crate::workers::{Runs, Waiter};

/// Kinds of rows that a version has batches for at a time.
const KINDS: usize = 16;

/// A version's open batches.
pub(crate) struct OpenBatches {
    batcher: Arc<Batcher>,
    runs: Arc<Runs>,
    doorbell: Arc<dyn Doorbell>,
    open: Mutex<Vec<(Kind, Weak<Batch>)>>,
}

impl OpenBatches {
    /// No batches yet.
    pub(crate) fn new(batcher: Batcher, runs: Arc<Runs>, doorbell: Arc<dyn Doorbell>) -> OpenBatches {
        OpenBatches { batcher: Arc::new(batcher), runs, doorbell, open: Mutex::default() }
    }

    /// Sizes, slabs and costs.
    pub(crate) fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// Rows for a request whose inputs have these shapes: in the open batch of their kind, else in a new one, if `admit` lets it in.
    ///
    /// # Errors
    /// As `admit`; `overloaded` when too much waits already; `internal` for other shapes than [`Batcher::takes`].
    pub(crate) fn reserve(
        &self,
        shapes: &[Shape],
        waiter: Waiter,
        executable: &ExecutableHandle,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<RowRange> {
        if self.batcher.is_off() || !self.batcher.takes(shapes) {
            return Err(Error::new(Code::Internal, "a request that cannot be part of a batch"));
        }
        let rows = shapes.first().map_or(1, Shape::rows);
        let now = Instant::now();
        self.batcher.came(rows, now);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let present = open
            .iter()
            .find(|(kind, _)| kind.is(shapes, waiter.class))
            .and_then(|(_, batch)| batch.upgrade());
        if let Some(range) = present.and_then(|batch| RowRange::take(batch, rows, waiter, now)) {
            return Ok(range);
        }
        admit()?;
        let each = shapes.iter().map(|shape| with_rows(shape, 1)).collect::<Result<_>>()?;
        let kind = Kind { each, class: waiter.class };
        let batch = Arc::new(Batch::new(self.version(executable), &kind, rows)?);
        let range = RowRange::take(batch.clone(), rows, waiter, now);
        let range = range.ok_or_else(|| Error::new(Code::Internal, "a new batch has no room"))?;
        open.retain(|(known, batch)| *known != kind && batch.strong_count() > 0);
        if open.len() < KINDS {
            // A kind beyond these has its requests run one by one.
            open.push((kind, Arc::downgrade(&batch)));
        }
        Ok(range)
    }

    fn version(&self, executable: &ExecutableHandle) -> BatchedVersion {
        BatchedVersion {
            executable: executable.clone(),
            batcher: self.batcher.clone(),
            runs: self.runs.clone(),
            doorbell: self.doorbell.clone(),
        }
    }
}
