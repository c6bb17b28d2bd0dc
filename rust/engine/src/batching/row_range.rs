//! A request's side of a batch: the rows that it reserved, and its part of the outputs.
//!
//! Next: `batch_run`, the worker's side.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::{Binding, TensorView};

use super::batch::{Batch, InputRows, OutputLocation, RowsOutcome};
use crate::time::Instant;
use crate::workers::Waiter;

/// The rows of a request in a batch. The request writes them, then marks them as written, then waits for the outcome.
pub(crate) struct RowRange {
    batch: Arc<Batch>,
    index: usize,
    start: usize,
    rows: usize,
    stage: RangeStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RangeStage {
    Writing,
    Written,
    Over,
}

/// The outcome of a request that was run in a batch.
pub(crate) struct RowRangeOutcome {
    /// Its outputs.
    pub(crate) result: Result<BatchRows>,
    /// Its inputs after a run that failed.
    pub(crate) failed_inputs: Option<BatchRows>,
    /// How long it waited, in nanoseconds.
    pub(crate) queue_ns: u64,
    /// How long the run of its batch took, in nanoseconds; 0 if there was none.
    pub(crate) run_ns: u64,
    /// Whether this request represents the run in counters of runs, which count a batch once.
    pub(crate) represents_run: bool,
}

/// A request's inputs and outputs after the run of its batch.
pub(crate) struct BatchRows {
    location: OutputLocation,
    rows: usize,
    /// Dropped last: it keeps in memory what the outputs belong to.
    batch: Arc<Batch>,
}

impl RowRange {
    /// Reserves `rows` rows in a batch; `None` if it has no room or is closed.
    pub(super) fn reserve(batch: Arc<Batch>, rows: usize, waiter: Waiter, now: Instant) -> Option<RowRange> {
        let (index, start) = batch.slots.reserve(rows, waiter.thread, now, waiter.deadline)?;
        Some(RowRange { batch, index, start, rows, stage: RangeStage::Writing })
    }

    /// The batch.
    pub(crate) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The memory of an input's rows; empty once they are marked as written.
    pub(crate) fn input_mut(&mut self, index: usize) -> &mut [u8] {
        let InputRows { start, row_bytes, .. } = self.batch.inputs[index];
        if self.stage != RangeStage::Writing {
            return &mut [];
        }
        // SAFETY: `row_slots` gave these rows to this request alone, it still writes, and they lie within the slab's input.
        unsafe {
            let first = start.as_ptr().add(self.start * row_bytes);
            std::slice::from_raw_parts_mut(first, self.rows * row_bytes)
        }
    }

    /// Marks the rows as written. Returns the batch if it must be queued: the first request of a batch queues it.
    pub(crate) fn mark_written(&mut self) -> Option<Arc<Batch>> {
        if std::mem::replace(&mut self.stage, RangeStage::Written) != RangeStage::Writing {
            return None;
        }
        self.batch.slots.mark_written(self.index).then(|| self.batch.clone())
    }

    /// Waits for the outcome. Dropping this meanwhile leaves the batch; the last request that leaves cancels the run.
    pub(crate) async fn outcome(mut self) -> RowRangeOutcome {
        let RowsOutcome { result, failed_inputs, queue_ns, run_ns, represents_run } =
            poll_fn(|cx| self.poll(cx)).await;
        let (batch, rows) = (&self.batch, self.rows);
        let at = |location| BatchRows { location, rows, batch: batch.clone() };
        RowRangeOutcome {
            result: result.map(at),
            failed_inputs: failed_inputs.map(at),
            queue_ns,
            run_ns,
            represents_run,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RowsOutcome> {
        let outcome = self.batch.slots.poll(self.index, cx);
        if outcome.is_ready() {
            self.stage = RangeStage::Over;
        }
        outcome
    }
}

impl Drop for RowRange {
    fn drop(&mut self) {
        if self.stage != RangeStage::Over {
            let all_left = self.batch.slots.leave(self.index);
            self.batch.cancel_unwanted(self.index, all_left);
        }
    }
}

impl BatchRows {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of an input.
    pub(crate) fn input(&self, index: usize) -> Result<TensorView<'_>> {
        self.slice(self.binding().input(index).view()?)
    }

    /// The rows of an output.
    pub(crate) fn output(&self, index: usize) -> Result<TensorView<'_>> {
        self.slice(self.binding().output(index)?)
    }

    /// For an owner that keeps the rows after the response: the slab leaves the count of the version's slabs.
    pub(crate) fn release_slab(&self) {
        self.batch.release_slab();
    }

    /// The bytes that the rows keep in memory: those of the whole slab, unless the request was run alone.
    pub(crate) fn held_bytes(&self) -> usize {
        let slab = self.batch.bytes();
        match &self.location {
            OutputLocation::OwnBuffers(binding) => slab + binding.held_bytes(),
            // SAFETY: as in `binding`.
            OutputLocation::Slab(_) => slab.max(unsafe { &*self.batch.slab.get() }.held_bytes()),
        }
    }

    fn binding(&self) -> &Binding {
        match &self.location {
            OutputLocation::OwnBuffers(binding) => binding,
            // SAFETY: this request is settled, so the run is over, and the slab is only read until its last reader is gone.
            OutputLocation::Slab(_) => unsafe { &*self.batch.slab.get() },
        }
    }

    fn slice<'a>(&self, view: TensorView<'a>) -> Result<TensorView<'a>> {
        let OutputLocation::Slab(start) = self.location else { return Ok(view) };
        view.rows(start, self.rows)
            .ok_or_else(|| Error::new(Code::Internal, "a batch without the rows of its requests"))
    }
}
