//! Requests that are run together: their rows go straight into one slab, and their outputs are slices of another.
//!
//! A version has one open batch for each class and shape of a row. No timer: an executor takes a batch as soon as a thread is free, and
//! while none is, it grows. A batch that fails is run again request by request, so that one bad row fails alone.
//!
//! Not here: a request's side of it (`seat`), who may write and read when (`seats`), a version's sizes, delays and slabs (`batcher`). Next: `seats`, `pool`.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::Result;
use headgate_core::tensor::Shape;
use headgate_runtime::Binding;
use headgate_runtime::cancel::CancelToken;
use headgate_runtime::device::InFlightRun;

use super::batch_kind::Kind;
use super::batcher::Batcher;
use super::row_slots::{Member, Seats};
use crate::compute::ExecutableHandle;
use crate::queue::Waits;
use crate::shapes::with_rows;
use crate::sync::{Mutex, lock};
use crate::workers::Runs;

/// Tells IO threads that somebody's outcome is there: once for a batch and not for each request in it.
pub trait Doorbell: Send + Sync {
    /// Has IO thread `thread` call [`Batch::wake`]; false when it cannot be told.
    fn ring(&self, thread: usize, batch: Arc<Batch>) -> bool;
}

/// A batch from its first row to its last answer.
pub struct Batch {
    pub(super) seats: Seats<Fate>,
    pub(super) slab: UnsafeCell<Binding>,
    pub(super) inputs: Vec<Rows>,
    bytes: usize,
    /// The rows that there is room for.
    pub(super) capacity: usize,
    class: u8,
    made: Instant,
    /// The run in progress, where it can be cancelled: of the seat that it is for, or of everybody.
    pub(super) run: Mutex<Option<(Option<usize>, CancelToken)>>,
    /// What was begun on the thread of an instance, until it is finished.
    pub(super) in_flight: Mutex<Option<InFlight>>,
    pub(super) version: BatchedVersion,
}

/// What a batch knows of the version that it is a batch of.
#[derive(Clone)]
pub(super) struct BatchedVersion {
    /// What computes.
    pub(super) executable: ExecutableHandle,
    /// Sizes, slabs and costs.
    pub(super) batcher: Arc<Batcher>,
    /// The runs in progress.
    pub(super) runs: Arc<Runs>,
    /// Tells IO threads.
    pub(super) doorbell: Arc<dyn Doorbell>,
}

/// Where an input's rows lie.
pub(super) struct Rows {
    pub(super) start: NonNull<u8>,
    pub(super) row_bytes: usize,
    /// The shape with as many rows as there is room for.
    shape: Shape,
}

// SAFETY: the slab is written by the owner of each seat within its own rows (`seats` gives none twice) until the batch is
// closed and nobody writes; then by the executor alone until it settles; then it is only read. Each step is ordered by the
// lock of `seats`.
unsafe impl Sync for Batch {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Batch {}

/// What became of a request in a batch.
pub(super) struct Fate {
    pub(super) result: Result<Found>,
    pub(super) queue_ns: u64,
    pub(super) run_ns: u64,
    /// Whether this request stands for the run where runs are counted.
    pub(super) counts: bool,
}

/// Where a request's outputs are.
pub(super) enum Found {
    /// In the slab, from that row on.
    Rows(usize),
    /// In buffers of its own: it was run alone.
    Alone(Box<Binding>),
}

/// The requests of a batch that nobody comes into any more.
pub(super) struct Closed {
    pub(super) members: Vec<Member>,
    /// Where the rows of each begin.
    pub(super) starts: Vec<usize>,
    pub(super) rows: usize,
    /// The rows that it is run with.
    pub(super) padded: usize,
    pub(super) at: Instant,
}

/// A closed batch whose run was begun.
pub(super) struct InFlight {
    pub(super) closed: Closed,
    pub(super) run: Result<Run>,
}

pub(super) enum Run {
    /// It took so many nanoseconds.
    Over(u64),
    /// On the way through an instance.
    InTheAir(InFlightRun, usize),
}

impl Batch {
    /// An empty batch with room for `rows` rows at least.
    pub(super) fn new(version: BatchedVersion, kind: &Kind, rows: usize) -> Result<Batch> {
        let Kind { each, class } = kind;
        let BatchedVersion { executable, batcher, .. } = &version;
        let datatypes = executable.signature().inputs.iter().map(|spec| spec.datatype.size().unwrap_or(0));
        let row_bytes: Vec<usize> =
            each.iter().zip(datatypes).map(|(row, size)| row.count() * size).collect();
        let row = row_bytes.iter().sum::<usize>();
        let capacity = batcher.slab_rows(row).max(batcher.padded(rows));
        let bytes = row.saturating_mul(capacity);
        let mut slab = batcher.take_slab(bytes, *class, || executable.new_binding())?;
        if let Err(error) = Self::make_room(&mut slab, each, capacity) {
            batcher.give_slab(slab, bytes, *class);
            return Err(error);
        }
        let inputs = row_bytes.into_iter().enumerate().map(|(index, row_bytes)| {
            let input = slab.input(index);
            Rows { start: input.start(), row_bytes, shape: *input.shape() }
        });
        let inputs = inputs.collect();
        Ok(Batch {
            seats: Seats::new(capacity),
            slab: UnsafeCell::new(slab),
            inputs,
            bytes,
            capacity,
            class: *class,
            made: Instant::now(),
            run: Mutex::default(),
            in_flight: Mutex::default(),
            version,
        })
    }

    /// Gives a slab room for `rows` rows.
    fn make_room(slab: &mut Binding, each: &[Shape], rows: usize) -> Result<()> {
        each.iter()
            .enumerate()
            .try_for_each(|(index, row)| slab.input_mut(index).reshape(&with_rows(row, rows)?))
    }

    /// Whether it is being run, or was.
    pub fn has_begun(&self) -> bool {
        self.seats.is_closed()
    }

    /// Wakes the requests of IO thread `home`; called there.
    pub fn wake(&self, home: usize) {
        self.seats.wake(home);
    }

    /// Whoever took a seat does not want it any more.
    pub(super) fn given_up(&self, index: usize, deserted: bool) {
        if let Some((seat, token)) = &*lock(&self.run)
            && seat.map_or(deserted, |seat| seat == index)
        {
            token.cancel();
        }
    }

    /// Moves the rows of those who stayed together; where each one's begin then.
    pub(super) fn close_gaps(&self, members: &[Member]) -> Vec<usize> {
        let mut next = 0;
        let mut starts = Vec::with_capacity(members.len());
        for member in members {
            if member.start != next {
                for Rows { start, row_bytes, .. } in &self.inputs {
                    // SAFETY: within the slab; nobody else touches it once the batch is closed.
                    unsafe {
                        let from = start.as_ptr().add(member.start * row_bytes);
                        let to = start.as_ptr().add(next * row_bytes);
                        std::ptr::copy(from, to, member.rows * row_bytes);
                    }
                }
            }
            starts.push(next);
            next += member.rows;
        }
        starts
    }

    /// Gives the slab the shape of `padded` rows, of which the first `rows` are there. The batch is closed.
    pub(super) fn fill_up(&self, slab: &mut Binding, rows: usize, padded: usize) -> Result<()> {
        for (index, Rows { start, row_bytes, shape }) in self.inputs.iter().enumerate() {
            for row in rows..padded {
                // Values that the model takes, for certain.
                // SAFETY: within the slab, which has room for `capacity` rows; the first row is another one.
                unsafe { std::ptr::copy(start.as_ptr(), start.as_ptr().add(row * row_bytes), *row_bytes) };
            }
            slab.input_mut(index).narrow(&with_rows(shape, padded)?)?;
        }
        Ok(())
    }

    /// Copies the rows from `start` on into other buffers. The batch is closed.
    pub(super) fn copy_rows(&self, binding: &mut Binding, start: usize, rows: usize) -> Result<()> {
        for (index, input) in self.inputs.iter().enumerate() {
            let tensor = binding.input_mut(index);
            tensor.reshape(&with_rows(&input.shape, rows)?)?;
            let into = tensor.bytes_mut().unwrap_or_default();
            // SAFETY: as in `close_gaps`; the buffers are others.
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

impl Waits for Batch {
    /// When the first request of those who are still there came, or the batch was made.
    fn came(&self) -> Instant {
        self.seats.look().map_or(self.made, |waiting| waiting.oldest)
    }

    /// Until when the last is of use; `None` when all have left.
    fn until(&self) -> Option<Instant> {
        self.seats.look().map(|waiting| waiting.latest)
    }

    /// The class of everybody in it.
    fn class(&self) -> u8 {
        self.class
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let BatchedVersion { executable, batcher, .. } = &self.version;
        let slab = std::mem::replace(self.slab.get_mut(), executable.new_binding());
        batcher.give_slab(slab, self.bytes, self.class);
    }
}
