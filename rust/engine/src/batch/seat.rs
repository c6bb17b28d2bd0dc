//! A request's side of a batch: its place, its rows, and its part of what comes out.
//!
//! Next: back to `batch`, the executor's side.

use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;
use headgate_runtime::{Binding, View};

use super::{Batch, Fate, Found, Rows};
use crate::batcher::{KINDS, Kind};
use crate::job::Waiter;
use crate::model::{Model, Warm};
use crate::ran::Ran;
use crate::warmup::with_rows;

/// A request's place in a batch. Its rows are written first, then [`crate::Pool::ready`] has them run.
pub struct Seat {
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

/// Some rows of a batch that was run.
pub struct Together {
    batch: Arc<Batch>,
    start: usize,
    rows: usize,
}

impl Seat {
    /// A place for a request whose inputs have these shapes, which [`crate::Batcher::takes`].
    ///
    /// # Errors
    /// `overloaded` when too much waits already; `internal` for other shapes.
    pub fn take(warm: Warm, shapes: &[Shape], waiter: Waiter) -> Result<Seat> {
        let Waiter { thread: home, deadline, class } = waiter;
        let batcher =
            warm.batcher().ok_or_else(|| Error::new(Code::Internal, "a version without batches"))?;
        if !batcher.takes(shapes) {
            return Err(Error::new(Code::Internal, "a request that cannot be part of a batch"));
        }
        let rows = shapes.first().map_or(1, Shape::rows);
        let now = Instant::now();
        batcher.came(rows, now);
        let mut open = batcher.open.lock().unwrap_or_else(PoisonError::into_inner);
        let present =
            open.iter().find(|(kind, _)| kind.is(shapes, class)).and_then(|(_, batch)| batch.upgrade());
        let taken = present.and_then(|batch| {
            let (index, start) = batch.seats.take(rows, home, now, deadline)?;
            Some(Seat { batch, index, start, rows, stage: Stage::Writing })
        });
        if let Some(seat) = taken {
            return Ok(seat);
        }
        warm.admit(class)?;
        let each = shapes.iter().map(|shape| with_rows(shape, 1)).collect::<Result<_>>()?;
        let kind = Kind { each, class };
        let batch = Arc::new(Batch::new(warm.clone(), batcher, &kind, rows)?);
        let first = batch.seats.take(rows, home, now, deadline);
        let (index, start) = first.ok_or_else(|| Error::new(Code::Internal, "a new batch has no room"))?;
        open.retain(|(known, batch)| *known != kind && batch.strong_count() > 0);
        if open.len() < KINDS {
            // A kind beyond these has its requests run one by one.
            open.push((kind, Arc::downgrade(&batch)));
        }
        drop(open);
        Ok(Seat { batch, index, start, rows, stage: Stage::Writing })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.batch.model()
    }

    /// The batch.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The memory of an input's rows, to be written.
    pub fn input_mut(&mut self, index: usize) -> &mut [u8] {
        let Rows { start, row_bytes, .. } = self.batch.inputs[index];
        if self.stage != Stage::Writing {
            return &mut [];
        }
        // SAFETY: these rows are this seat's alone while it writes, and lie within the slab's input.
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
    pub async fn done(mut self) -> Done {
        let Fate { result, queue_ns, run_ns, counts } = poll_fn(|cx| self.poll(cx)).await;
        let (batch, rows) = (self.batch.clone(), self.rows);
        let result = result.map(|found| match found {
            Found::Alone(lease) => Ran::Alone(lease),
            Found::Rows(start) => Ran::Together(Together { batch, start, rows }),
        });
        Done { result, queue_ns, run_ns, counts }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let fate = self.batch.seats.poll(self.index, cx);
        if fate.is_ready() {
            self.stage = Stage::Over;
        }
        fate
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.stage != Stage::Over {
            let deserted = self.batch.seats.leave(self.index);
            self.batch.given_up(self.index, deserted);
        }
    }
}

impl Together {
    /// The model.
    pub(crate) fn model(&self) -> &Arc<Model> {
        self.batch.model()
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of an input.
    pub(crate) fn input(&self, index: usize) -> Result<View<'_>> {
        self.part(self.slab().input(index).view()?)
    }

    /// The rows of an output.
    pub(crate) fn output(&self, index: usize) -> Result<View<'_>> {
        self.part(self.slab().output(index)?)
    }

    fn slab(&self) -> &Binding {
        // SAFETY: this request is settled, so the run is over and the slab is only read until its last reader is gone.
        unsafe { &*self.batch.slab.get() }
    }

    fn part<'a>(&self, view: View<'a>) -> Result<View<'a>> {
        view.rows(self.start, self.rows)
            .ok_or_else(|| Error::new(Code::Internal, "a batch without the rows of its requests"))
    }
}
