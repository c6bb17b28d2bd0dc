//! Requests that are run together: their rows go straight into one slab, and their outputs are slices of another.
//!
//! A version has one open batch for each class and shape of a row. No timer: an executor takes a batch as soon as a thread is free, and
//! while none is, it grows. A batch that fails is run again request by request, so that one bad row fails alone.
//!
//! Not here: who may write and read when (`seats`), a version's sizes, delays and slabs (`batcher`). Next: `seats`, `pool`.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

use std::cell::UnsafeCell;
use std::future::poll_fn;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{MAX_RANK, Shape};
use headgate_runtime::device::Flight;
use headgate_runtime::{Binding, View};

use crate::batcher::{Batcher, KINDS, Kind};
use crate::model::{Lease, Model, Warm};
use crate::pool::{Doorbell, Waiter, late, nanos};
use crate::ran::Ran;
use crate::seats::{Member, Seats};

/// A batch from its first row to its last answer.
pub struct Batch {
    seats: Seats<Fate>,
    slab: UnsafeCell<Binding>,
    inputs: Vec<Rows>,
    bytes: usize,
    class: u8,
    made: Instant,
    warm: Warm,
}

/// Where an input's rows lie.
struct Rows {
    start: NonNull<u8>,
    row_bytes: usize,
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
struct Fate {
    result: Result<Found>,
    queue_ns: u64,
    run_ns: u64,
    /// Whether this request stands for the run where runs are counted.
    counts: bool,
}

/// Where a request's outputs are.
enum Found {
    /// In the slab, from that row on.
    Rows(usize),
    /// In buffers of its own: it was run alone.
    Alone(Lease),
}

/// A batch that nobody comes into any more, and whose run was begun.
pub(crate) struct Closed {
    members: Vec<Member>,
    /// Where the rows of each begin.
    starts: Vec<usize>,
    rows: usize,
    /// The rows that it is run with.
    padded: usize,
    now: Instant,
    run: Result<Run>,
}

enum Run {
    /// It took so many nanoseconds.
    Over(u64),
    InTheAir(Flight),
}

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
    /// A place for a request whose inputs have these shapes, all with the same number of rows.
    ///
    /// # Errors
    /// `invalid_argument` for more rows than a batch may have, or other numbers of them from input to input; `overloaded`
    /// when too much waits already.
    pub fn take(warm: Warm, shapes: &[Shape], waiter: Waiter) -> Result<Seat> {
        let Waiter { thread: home, deadline, class } = waiter;
        let batcher =
            warm.batcher().ok_or_else(|| Error::new(Code::Internal, "a version without batches"))?;
        let rows = shapes.first().map_or(1, Shape::rows);
        if shapes.iter().any(|shape| shape.rows() != rows) {
            return Err(Error::invalid(format!(
                "the inputs have {:?} rows; in a batch each has the same number",
                shapes.iter().map(Shape::rows).collect::<Vec<_>>()
            )));
        }
        if rows > batcher.max_batch() {
            return Err(Error::invalid(format!(
                "the request has {rows} rows; this version takes at most {} (max_batch)",
                batcher.max_batch()
            )));
        }
        let now = Instant::now();
        batcher.came(rows, now);
        let each = shapes.iter().map(|shape| with_rows(shape, 1)).collect::<Result<_>>()?;
        let kind = Kind { each, class };
        let mut open = batcher.open.lock().unwrap_or_else(PoisonError::into_inner);
        let present = open.iter().find(|(known, _)| *known == kind).and_then(|(_, batch)| batch.upgrade());
        let taken = present.and_then(|batch| {
            let (index, start) = batch.seats.take(rows, home, now, deadline)?;
            Some(Seat { batch, index, start, rows, stage: Stage::Writing })
        });
        if let Some(seat) = taken {
            return Ok(seat);
        }
        warm.admit(class)?;
        let batch = Arc::new(Batch::new(warm.clone(), batcher, &kind)?);
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

    /// Waits for the run. Whoever drops this meanwhile leaves the batch, if it has not begun.
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
            self.batch.seats.leave(self.index);
        }
    }
}

impl Batch {
    fn new(warm: Warm, batcher: &Batcher, kind: &Kind) -> Result<Batch> {
        let Kind { each, class } = kind;
        let datatypes = warm.signature().inputs.iter().map(|spec| spec.datatype.size().unwrap_or(0));
        let row_bytes: Vec<usize> =
            each.iter().zip(datatypes).map(|(row, size)| row.count() * size).collect();
        let bytes = row_bytes.iter().sum::<usize>().saturating_mul(batcher.max_batch());
        let mut slab = batcher.take_slab(bytes, *class, || warm.new_binding())?;
        if let Err(error) = Self::make_room(&mut slab, each, batcher.max_batch()) {
            batcher.give_slab(slab, bytes);
            return Err(error);
        }
        let inputs = row_bytes.into_iter().enumerate().map(|(index, row_bytes)| {
            let input = slab.input(index);
            Rows { start: input.start(), row_bytes, shape: *input.shape() }
        });
        let inputs = inputs.collect();
        let seats = Seats::new(batcher.max_batch());
        let slab = UnsafeCell::new(slab);
        Ok(Batch { seats, inputs, bytes, slab, class: *class, made: Instant::now(), warm })
    }

    /// Gives a slab room for `rows` rows.
    fn make_room(slab: &mut Binding, each: &[Shape], rows: usize) -> Result<()> {
        each.iter()
            .enumerate()
            .try_for_each(|(index, row)| slab.input_mut(index).reshape(&with_rows(row, rows)?))
    }

    /// The model.
    pub(crate) fn model(&self) -> &Arc<Model> {
        self.warm.model()
    }

    /// Whether it is being run, or was.
    pub fn has_begun(&self) -> bool {
        self.seats.is_closed()
    }

    /// The class of everybody in it.
    pub(crate) fn class(&self) -> u8 {
        self.class
    }

    /// Wakes the requests of IO thread `home`; called there.
    pub fn wake(&self, home: usize) {
        self.seats.wake(home);
    }

    /// When the first request of those who are still there came, or the batch was made.
    pub(crate) fn came(&self) -> Instant {
        self.seats.look().map_or(self.made, |waiting| waiting.oldest)
    }

    /// Until when the last is of use; `None` when all have left.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.seats.look().map(|waiting| waiting.latest)
    }

    /// Whether no row more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.seats.look().is_some_and(|waiting| waiting.full)
    }

    /// Runs the batch and tells everybody in it. Called once, on a pool thread. How long its first request waited and how
    /// long the run took, in nanoseconds.
    pub(crate) fn run(self: &Arc<Self>, doorbell: &dyn Doorbell) -> (u64, u64) {
        let closed = self.begin(None, true);
        self.finish(closed, None, doorbell)
    }

    /// Lets nobody in any more and begins the run, on the thread of an instance or else to its end. `waits` for rows that are
    /// expected.
    pub(crate) fn begin(&self, instance: Option<usize>, waits: bool) -> Closed {
        if let Some(batcher) = self.warm.batcher().filter(|_| waits) {
            self.seats.wait(|waiting| batcher.patience(waiting));
        }
        let now = Instant::now();
        let (members, expired): (Vec<_>, Vec<_>) =
            self.seats.close().into_iter().partition(|member| member.deadline > now);
        self.seats.settle(expired.iter().map(|member| (member.index, Fate::failed(late(), member, now))));
        let starts = self.close_gaps(&members);
        let rows = members.iter().map(|member| member.rows).sum();
        let padded = self.warm.batcher().map_or(rows, |batcher| batcher.padded(rows));
        let run = if members.is_empty() { Ok(Run::Over(0)) } else { self.begin_rows(rows, padded, instance) };
        Closed { members, starts, rows, padded, now, run }
    }

    /// Waits for the run and tells everybody. On the thread of an instance, the run computed from a certain time on.
    pub(crate) fn finish(
        self: &Arc<Self>,
        closed: Closed,
        instance: Option<(usize, Instant)>,
        doorbell: &dyn Doorbell,
    ) -> (u64, u64) {
        let Closed { members, starts, rows, padded, now, run } = closed;
        let ran = match members.is_empty() {
            true => Ok(0),
            false => run.and_then(|run| self.end_rows(run, (rows, padded), instance)),
        };
        self.tell(&members, &starts, ran, (now, instance.map(|(instance, _)| instance)));
        let wait_ns = members.iter().map(|member| nanos(now - member.taken)).max().unwrap_or(0);
        let since = instance.map_or(now, |(_, since)| since);
        let run_ns = if members.is_empty() { 0 } else { nanos(since.elapsed()) };
        for home in self.seats.homes() {
            if !doorbell.ring(home, self.clone()) {
                self.seats.wake(home);
            }
        }
        (wait_ns, run_ns)
    }

    fn tell(
        &self,
        members: &[Member],
        starts: &[usize],
        ran: Result<u64>,
        (now, instance): (Instant, Option<usize>),
    ) {
        match ran {
            Ok(run_ns) => {
                self.seats.settle(members.iter().zip(starts).enumerate().map(|(at, (member, &start))| {
                    let queue_ns = nanos(now - member.taken);
                    (member.index, Fate { result: Ok(Found::Rows(start)), queue_ns, run_ns, counts: at == 0 })
                }))
            }
            Err(error) if members.len() == 1 => {
                self.seats.settle([(members[0].index, Fate::failed(error, &members[0], now))]);
            }
            Err(_) => {
                for (member, &start) in members.iter().zip(starts) {
                    self.seats.settle([(member.index, self.run_alone(member, start, instance))]);
                }
            }
        }
    }

    /// Moves the rows of those who stayed together; where each one's begin then.
    fn close_gaps(&self, members: &[Member]) -> Vec<usize> {
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

    /// Begins to run the first rows of the slab, filled up.
    fn begin_rows(&self, rows: usize, padded: usize, instance: Option<usize>) -> Result<Run> {
        // SAFETY: the batch is closed and nothing is settled: nobody else touches the slab.
        let slab = unsafe { &mut *self.slab.get() };
        for (index, Rows { start, row_bytes, shape }) in self.inputs.iter().enumerate() {
            for row in rows..padded {
                // Values that the model takes, for certain.
                // SAFETY: within the slab, which has room for `max_batch` rows; the first row is another one.
                unsafe { std::ptr::copy(start.as_ptr(), start.as_ptr().add(row * row_bytes), *row_bytes) };
            }
            slab.input_mut(index).narrow(&with_rows(shape, padded)?)?;
        }
        match instance {
            // SAFETY: the slab is left alone until `end_rows`, which whoever has the closed batch calls.
            Some(instance) => unsafe { self.warm.begin(instance, slab) }.map(Run::InTheAir),
            None => {
                let begun = Instant::now();
                self.warm.execute(slab)?;
                Ok(Run::Over(nanos(begun.elapsed())))
            }
        }
    }

    /// Waits for the run; how long it took, in nanoseconds.
    fn end_rows(
        &self,
        run: Run,
        (rows, padded): (usize, usize),
        instance: Option<(usize, Instant)>,
    ) -> Result<u64> {
        // SAFETY: as in `begin_rows`.
        let slab = unsafe { &mut *self.slab.get() };
        let run_ns = match (run, instance) {
            (Run::Over(run_ns), _) => run_ns,
            (Run::InTheAir(flight), Some((instance, since))) => {
                self.warm.finish(instance, flight, slab)?;
                nanos(since.elapsed())
            }
            (Run::InTheAir(_), None) => {
                return Err(Error::new(Code::Internal, "a run in the air without an instance"));
            }
        };
        for index in 0..slab.outputs() {
            check_rows(&slab.output(index)?, padded)?;
        }
        if let Some(batcher) = self.warm.batcher() {
            batcher.ran(rows, padded, run_ns);
        }
        Ok(run_ns)
    }

    /// Runs one request whose rows begin at `start`, in buffers of its own.
    fn run_alone(&self, member: &Member, start: usize, instance: Option<usize>) -> Fate {
        let begun = Instant::now();
        if begun >= member.deadline {
            return Fate::failed(late(), member, begun);
        }
        let mut lease = Lease::take(self.warm.clone(), 0);
        let result = self.fill(&mut lease, member.rows, start).and_then(|()| lease.run_on(instance));
        let (queue_ns, run_ns) = (nanos(begun - member.taken), nanos(begun.elapsed()));
        Fate { result: result.map(|()| Found::Alone(lease)), queue_ns, run_ns, counts: true }
    }

    fn fill(&self, lease: &mut Lease, rows: usize, start: usize) -> Result<()> {
        for (index, input) in self.inputs.iter().enumerate() {
            let tensor = lease.binding_mut().input_mut(index);
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

impl Drop for Batch {
    fn drop(&mut self) {
        let Some(batcher) = self.warm.batcher() else { return };
        let slab = std::mem::replace(self.slab.get_mut(), self.warm.new_binding());
        batcher.give_slab(slab, self.bytes);
    }
}

impl Fate {
    fn failed(error: Error, member: &Member, now: Instant) -> Fate {
        Fate { result: Err(error), queue_ns: nanos(now - member.taken), run_ns: 0, counts: false }
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

fn check_rows(output: &View<'_>, rows: usize) -> Result<()> {
    if output.shape.dims().first() == Some(&(rows as i64)) {
        return Ok(());
    }
    Err(Error::new(
        Code::BackendFailed,
        format!("a batch of {rows} rows gave an output of shape {:?}; remove max_batch", output.shape),
    ))
}

/// A shape with another number of rows.
fn with_rows(shape: &Shape, rows: usize) -> Result<Shape> {
    let mut dims = [0; MAX_RANK];
    let rank = shape.dims().len();
    dims[..rank].copy_from_slice(shape.dims());
    if rank > 0 {
        dims[0] = rows as i64;
    }
    Shape::new(&dims[..rank])
}
