//! A request's side of a batch: its place, its rows, and its part of what comes out.
//!
//! Next: back to `batch`, the executor's side.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::{Binding, TensorView};

use super::batch::{Batch, Fate, Found, Rows};
use crate::workers::Waiter;

/// A request's place in a batch. Its rows are written first, then they are ready to be run.
pub(crate) struct RowRange {
    batch: Arc<Batch>,
    index: usize,
    start: usize,
    rows: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Writing,
    Ready,
    Over,
}

/// The end of a request that was run in a batch.
pub(crate) struct Finished {
    /// Its outputs.
    pub(crate) result: Result<BatchRows>,
    /// How long it waited, in nanoseconds.
    pub(crate) queue_ns: u64,
    /// How long the run took that it was part of, in nanoseconds; 0 when there was none.
    pub(crate) run_ns: u64,
    /// Whether it stands for that run where runs are counted.
    pub(crate) counts: bool,
}

/// A request's inputs and outputs after the run of its batch.
pub(crate) struct BatchRows {
    found: Found,
    rows: usize,
    /// Dropped last: it keeps in memory what made the outputs.
    batch: Arc<Batch>,
}

impl RowRange {
    /// A place for `rows` rows; `None` when there is no room, or nobody is let in any more.
    pub(super) fn take(batch: Arc<Batch>, rows: usize, waiter: Waiter, now: Instant) -> Option<RowRange> {
        let (index, start) = batch.seats.take(rows, waiter.thread, now, waiter.deadline)?;
        Some(RowRange { batch, index, start, rows, stage: Stage::Writing })
    }

    /// The batch.
    pub(crate) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The memory of an input's rows, to be written.
    pub(crate) fn input_mut(&mut self, index: usize) -> &mut [u8] {
        let Rows { start, row_bytes, .. } = self.batch.inputs[index];
        if self.stage != Stage::Writing {
            return &mut [];
        }
        // SAFETY: these rows are this request's alone while it writes, and lie within the slab's input.
        unsafe {
            let first = start.as_ptr().add(self.start * row_bytes);
            std::slice::from_raw_parts_mut(first, self.rows * row_bytes)
        }
    }

    /// The rows are written; the batch, when nobody has handed it to an executor yet.
    pub(crate) fn ready(&mut self) -> Option<Arc<Batch>> {
        if std::mem::replace(&mut self.stage, Stage::Ready) != Stage::Writing {
            return None;
        }
        self.batch.seats.ready(self.index).then(|| self.batch.clone())
    }

    /// Waits for the run. Whoever drops this meanwhile leaves the batch; the last one cancels its run.
    pub(crate) async fn done(mut self) -> Finished {
        let Fate { result, queue_ns, run_ns, counts } = poll_fn(|cx| self.poll(cx)).await;
        let (batch, rows) = (self.batch.clone(), self.rows);
        Finished { result: result.map(|found| BatchRows { found, rows, batch }), queue_ns, run_ns, counts }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let fate = self.batch.seats.poll(self.index, cx);
        if fate.is_ready() {
            self.stage = Stage::Over;
        }
        fate
    }
}

impl Drop for RowRange {
    fn drop(&mut self) {
        if self.stage != Stage::Over {
            let deserted = self.batch.seats.leave(self.index);
            self.batch.given_up(self.index, deserted);
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
        self.part(self.binding().input(index).view()?)
    }

    /// The rows of an output.
    pub(crate) fn output(&self, index: usize) -> Result<TensorView<'_>> {
        self.part(self.binding().output(index)?)
    }

    fn binding(&self) -> &Binding {
        match &self.found {
            Found::Alone(binding) => binding,
            // SAFETY: this request is settled, so the run is over and the slab is only read until its last reader is gone.
            Found::Rows(_) => unsafe { &*self.batch.slab.get() },
        }
    }

    fn part<'a>(&self, view: TensorView<'a>) -> Result<TensorView<'a>> {
        let Found::Rows(start) = self.found else { return Ok(view) };
        view.rows(start, self.rows)
            .ok_or_else(|| Error::new(Code::Internal, "a batch without the rows of its requests"))
    }
}
