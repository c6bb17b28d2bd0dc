//! A batch: requests that are run together. Each request writes its rows into one slab, and its outputs are slices of the run's outputs.
//!
//! A version has one open batch for each class and shape of a row. There is no timer: a worker takes a batch as soon as one is free, and
//! until then the batch grows.
//!
//! Not here: the run (`batch_run`), a request's side (`row_range`), when rows may be written and read (`row_slots`), sizes, delays and slabs
//! (`batcher`). Next: `row_slots`, `batch_run`.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use headgate_core::error::Result;
use headgate_core::tensor::Shape;
use headgate_runtime::Binding;
use headgate_runtime::cancel::CancelToken;
use headgate_runtime::device::InFlightRun;

use super::batch_kind::BatchKind;
use super::batcher::Batcher;
use super::row_slots::{ReadyRows, RowSlots};
use crate::compute::ExecutableHandle;
use crate::queue::Queued;
use crate::shapes::with_rows;
use crate::sync::{Mutex, lock};
use crate::time::Instant;
use crate::workers::RunCounters;

/// Wakes IO threads whose requests have an outcome: once for a batch, and not for each request in it.
pub trait BatchWaker: Send + Sync {
    /// Has IO thread `thread` call [`Batch::wake`]. False if the thread cannot be reached.
    fn wake_thread(&self, thread: usize, batch: Arc<Batch>) -> bool;
}

/// A batch, from its first row to its last response.
pub struct Batch {
    pub(super) slots: RowSlots<RowsOutcome>,
    pub(super) slab: UnsafeCell<Binding>,
    pub(super) inputs: Vec<InputRows>,
    bytes: usize,
    /// The rows that the slab has room for.
    pub(super) capacity: usize,
    class: u8,
    /// Whether the slab counts no more among those of the version, because an owner keeps it that is bounded elsewhere.
    is_released: AtomicBool,
    created_at: Instant,
    /// Cancels the run in progress.
    pub(super) cancellation: Mutex<Option<RunToken>>,
    /// The run that was begun on a device, until it is finished.
    pub(super) in_flight: Mutex<Option<BatchInFlight>>,
    pub(super) context: BatchContext,
}

/// Cancels a run in progress.
pub(super) struct RunToken {
    /// The request that is run alone; `None` if the whole batch is run.
    pub(super) slot: Option<usize>,
    pub(super) token: CancelToken,
}

/// What a batch needs of its version.
#[derive(Clone)]
pub(super) struct BatchContext {
    /// What computes.
    pub(super) executable: ExecutableHandle,
    /// Sizes, slabs and costs.
    pub(super) batcher: Arc<Batcher>,
    /// The counters of runs.
    pub(super) runs: Arc<RunCounters>,
    /// Wakes IO threads.
    pub(super) batch_waker: Arc<dyn BatchWaker>,
}

/// Where the rows of an input lie.
pub(super) struct InputRows {
    pub(super) start: NonNull<u8>,
    pub(super) row_bytes: usize,
    /// The shape with as many rows as there is room for.
    shape: Shape,
}

// SAFETY: each request writes the slab within its own rows, which `slots` gives once, until the batch is closed and no request writes.
// Then the worker alone writes it, until it settles the requests. Then it is only read. The lock of `slots` orders these steps.
unsafe impl Sync for Batch {}
// SAFETY: nothing in a batch belongs to a thread.
unsafe impl Send for Batch {}

/// The outcome of one request.
pub(super) struct RowsOutcome {
    pub(super) result: Result<OutputLocation>,
    /// Where its inputs are after a run that failed.
    pub(super) failed_inputs: Option<OutputLocation>,
    pub(super) queue_ns: u64,
    /// How long its run took, whether or not it failed; 0 if there was none.
    pub(super) run_ns: u64,
    /// Whether this request represents the run in counters of runs, which count a batch once.
    pub(super) represents_run: bool,
}

/// Where the inputs and outputs of a request are.
pub(super) enum OutputLocation {
    /// In the slab, from that row on.
    Slab(usize),
    /// In buffers of its own, because it was run alone.
    OwnBuffers(Box<Binding>),
}

/// The requests of a batch that takes no more of them.
pub(super) struct ClosedBatch {
    pub(super) requests: Vec<ReadyRows>,
    /// The first row of each request.
    pub(super) starts: Vec<usize>,
    pub(super) rows: usize,
    /// The rows that it is run with.
    pub(super) padded: usize,
    pub(super) closed_at: Instant,
}

/// A closed batch whose run was begun.
pub(super) struct BatchInFlight {
    pub(super) closed: ClosedBatch,
    pub(super) run: Result<BatchRun>,
}

pub(super) enum BatchRun {
    /// It is finished, and took so many nanoseconds.
    Finished(u64),
    /// It is in flight on that instance.
    OnDevice(InFlightRun, usize),
}

impl Batch {
    /// An empty batch with room for at least `rows` rows.
    pub(super) fn new(context: BatchContext, kind: &BatchKind, rows: usize) -> Result<Batch> {
        let BatchKind { row_shapes, class } = kind;
        let BatchContext { executable, batcher, .. } = &context;
        let datatypes = executable.signature().inputs.iter().map(|spec| spec.datatype.size().unwrap_or(0));
        let row_bytes: Vec<usize> =
            row_shapes.iter().zip(datatypes).map(|(row, size)| row.count() * size).collect();
        let row = row_bytes.iter().sum::<usize>();
        let capacity = batcher.rows_per_slab(row).max(batcher.padded_rows(rows));
        let bytes = row.saturating_mul(capacity);
        let mut slab = batcher.take_slab(bytes, *class, || executable.new_binding())?;
        if let Err(error) = Self::make_room(&mut slab, row_shapes, capacity) {
            batcher.return_slab(slab, bytes, *class);
            return Err(error);
        }
        let inputs = row_bytes.into_iter().enumerate().map(|(index, row_bytes)| {
            let input = slab.input(index);
            InputRows { start: input.start(), row_bytes, shape: *input.shape() }
        });
        let inputs = inputs.collect();
        Ok(Batch {
            slots: RowSlots::new(capacity),
            slab: UnsafeCell::new(slab),
            inputs,
            bytes,
            capacity,
            class: *class,
            is_released: AtomicBool::new(false),
            created_at: Instant::now(),
            cancellation: Mutex::default(),
            in_flight: Mutex::default(),
            context,
        })
    }

    /// Gives a slab room for `rows` rows.
    fn make_room(slab: &mut Binding, row_shapes: &[Shape], rows: usize) -> Result<()> {
        row_shapes
            .iter()
            .enumerate()
            .try_for_each(|(index, row)| slab.input_mut(index).reshape(&with_rows(row, rows)?))
    }

    /// The bytes that it is counted with.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the slab out of the count of the version's slabs, for an owner that keeps it after the response. It is freed with the batch and
    /// never used again, so that a thread of low priority which drops the batch touches nothing that requests wait for.
    pub(super) fn release_slab(&self) {
        if !self.is_released.swap(true, Relaxed) {
            self.context.batcher.release_slab(self.bytes, self.class);
        }
    }

    /// Whether its run has begun.
    pub fn has_begun(&self) -> bool {
        self.slots.is_closed()
    }

    /// Wakes the requests of IO thread `thread`, which must call this itself.
    pub fn wake(&self, thread: usize) {
        self.slots.wake(thread);
    }

    /// Cancels the run if it is for the request at `index`, which has left, or for a batch that all requests have left.
    pub(super) fn cancel_unwanted(&self, index: usize, all_left: bool) {
        if let Some(RunToken { slot, token }) = &*lock(&self.cancellation)
            && slot.map_or(all_left, |slot| slot == index)
        {
            token.cancel();
        }
    }

    /// Moves the rows of the requests together, so that no gap is between them; returns where the rows of each begin.
    pub(super) fn compact_rows(&self, requests: &[ReadyRows]) -> Vec<usize> {
        let mut next = 0;
        let mut starts = Vec::with_capacity(requests.len());
        for request in requests {
            if request.start != next {
                for InputRows { start, row_bytes, .. } in &self.inputs {
                    // SAFETY: the rows lie within the slab, and only the worker touches it once the batch is closed.
                    unsafe {
                        let from = start.as_ptr().add(request.start * row_bytes);
                        let to = start.as_ptr().add(next * row_bytes);
                        std::ptr::copy(from, to, request.rows * row_bytes);
                    }
                }
            }
            starts.push(next);
            next += request.rows;
        }
        starts
    }

    /// Gives the slab the shape of `padded` rows, of which the first `rows` are written. The batch must be closed.
    pub(super) fn pad_rows(&self, slab: &mut Binding, rows: usize, padded: usize) -> Result<()> {
        for (index, InputRows { start, row_bytes, shape }) in self.inputs.iter().enumerate() {
            for row in rows..padded {
                // Copies of the first row: the model takes these values for certain.
                // SAFETY: both rows lie within the slab, which has room for `capacity` rows, and they differ.
                unsafe { std::ptr::copy(start.as_ptr(), start.as_ptr().add(row * row_bytes), *row_bytes) };
            }
            slab.input_mut(index).narrow(&with_rows(shape, padded)?)?;
        }
        Ok(())
    }

    /// Copies the rows from `start` on into other buffers. The batch must be closed.
    pub(super) fn copy_rows(&self, binding: &mut Binding, start: usize, rows: usize) -> Result<()> {
        for (index, input) in self.inputs.iter().enumerate() {
            let tensor = binding.input_mut(index);
            tensor.reshape(&with_rows(&input.shape, rows)?)?;
            let into = tensor.bytes_mut().unwrap_or_default();
            // SAFETY: as in `compact_rows`; the target is another buffer.
            unsafe {
                let from = input.start.as_ptr().add(start * input.row_bytes);
                std::ptr::copy_nonoverlapping(
                    from,
                    into.as_mut_ptr(),
                    into.len().min(rows * input.row_bytes),
                );
            }
        }
        Ok(())
    }
}

impl Queued for Batch {
    /// When the oldest request that still waits was added, or else the batch was made.
    fn queued_at(&self) -> Instant {
        self.slots.waiting_rows().map_or(self.created_at, |waiting| waiting.oldest_queued_at)
    }

    /// The latest deadline of its requests; `None` if all have left.
    fn useful_until(&self) -> Option<Instant> {
        self.slots.waiting_rows().map(|waiting| waiting.latest_deadline)
    }

    /// The class of all its requests.
    fn class(&self) -> u8 {
        self.class
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if *self.is_released.get_mut() {
            return;
        }
        let BatchContext { executable, batcher, .. } = &self.context;
        let slab = std::mem::replace(self.slab.get_mut(), executable.new_binding());
        batcher.return_slab(slab, self.bytes, self.class);
    }
}
