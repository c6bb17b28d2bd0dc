//! Requests that are run together: their rows go straight into one slab, and their outputs are slices of another.
//!
//! A version has one open batch for each class and shape of a row. No timer: an executor takes a batch as soon as a thread is free, and
//! while none is, it grows. A batch that fails is run again request by request, so that one bad row fails alone.
//!
//! Not here: a request's side of it (`seat`), who may write and read when (`seats`), a version's sizes, delays and slabs (`batcher`). Next: `seats`, `pool`.
#![allow(unsafe_code, reason = "requests write their rows into one slab at the same time")]

mod seat;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Shape;
use headgate_runtime::cancel::Token;
use headgate_runtime::device::Flight;
use headgate_runtime::{Binding, View};

use crate::batcher::{Batcher, Kind};
use crate::lease::Lease;
use crate::model::{Model, Warm};
use crate::pool::{Doorbell, late, nanos};
use crate::runner::{On, Runner};
use crate::seats::{Member, Seats};
use crate::sync::{Mutex, lock};
use crate::warmup::with_rows;

pub use seat::{Done, Seat, Together};

/// A batch from its first row to its last answer.
pub struct Batch {
    seats: Seats<Fate>,
    slab: UnsafeCell<Binding>,
    inputs: Vec<Rows>,
    bytes: usize,
    /// The rows that there is room for.
    capacity: usize,
    class: u8,
    made: Instant,
    /// The run in progress, where it can be cancelled: of the seat that it is for, or of everybody.
    run: Mutex<Option<(Option<usize>, Token)>>,
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
pub(crate) struct Closed<'a> {
    members: Vec<Member>,
    /// Where the rows of each begin.
    starts: Vec<usize>,
    rows: usize,
    /// The rows that it is run with.
    padded: usize,
    now: Instant,
    on: On<'a>,
    run: Result<Run>,
}

enum Run {
    /// It took so many nanoseconds.
    Over(u64),
    /// On the way through an instance.
    InTheAir(Flight, usize),
}

impl Batch {
    /// An empty batch with room for `rows` rows at least.
    fn new(warm: Warm, batcher: &Batcher, kind: &Kind, rows: usize) -> Result<Batch> {
        let Kind { each, class } = kind;
        let datatypes = warm.signature().inputs.iter().map(|spec| spec.datatype.size().unwrap_or(0));
        let row_bytes: Vec<usize> =
            each.iter().zip(datatypes).map(|(row, size)| row.count() * size).collect();
        let row = row_bytes.iter().sum::<usize>();
        let capacity = batcher.slab_rows(row).max(batcher.padded(rows));
        let bytes = row.saturating_mul(capacity);
        let mut slab = batcher.take_slab(bytes, *class, || warm.new_binding())?;
        if let Err(error) = Self::make_room(&mut slab, each, capacity) {
            batcher.give_slab(slab, bytes, *class);
            return Err(error);
        }
        let inputs = row_bytes.into_iter().enumerate().map(|(index, row_bytes)| {
            let input = slab.input(index);
            Rows { start: input.start(), row_bytes, shape: *input.shape() }
        });
        let inputs = inputs.collect();
        let (seats, slab, made) = (Seats::new(capacity), UnsafeCell::new(slab), Instant::now());
        Ok(Batch { seats, inputs, bytes, capacity, slab, class: *class, made, run: Mutex::default(), warm })
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
    pub(crate) fn run(self: &Arc<Self>, runner: &Runner, doorbell: &dyn Doorbell) -> (u64, u64) {
        let closed = self.begin(On::Thread(runner), true);
        self.finish(closed, None, doorbell)
    }

    /// Lets nobody in any more and begins the run, on the thread of an instance or else to its end. `waits` for rows that are
    /// expected.
    pub(crate) fn begin<'a>(&self, on: On<'a>, waits: bool) -> Closed<'a> {
        if let Some(batcher) = self.warm.batcher().filter(|_| waits) {
            self.seats.wait(|waiting| batcher.patience(waiting));
        }
        let now = Instant::now();
        let (members, expired): (Vec<_>, Vec<_>) =
            self.seats.close().into_iter().partition(|member| member.deadline > now);
        self.seats.settle(expired.iter().map(|member| (member.index, Fate::failed(late(), member, now))));
        let starts = self.close_gaps(&members);
        let rows = members.iter().map(|member| member.rows).sum();
        let padded = self.warm.batcher().map_or(rows, |batcher| batcher.padded(rows).min(self.capacity));
        let run = match members.iter().map(|member| member.deadline).max() {
            None => Ok(Run::Over(0)),
            Some(latest) => {
                self.cancellable(on, latest, None, || self.begin_rows(rows, padded, on.instance()))
            }
        };
        Closed { members, starts, rows, padded, now, on, run }
    }

    /// Runs for one seat or for everybody; whoever gives it up meanwhile cancels it.
    fn cancellable<T>(
        &self,
        on: On<'_>,
        until: Instant,
        seat: Option<usize>,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(running) = on.begin(self.model(), until) else { return run() };
        *lock(&self.run) = Some((seat, running.token()));
        // Who left before the token was there could not cancel.
        let unwanted = match seat {
            Some(index) => self.seats.has_left(index),
            None => self.seats.look().is_none(),
        };
        if unwanted {
            running.token().cancel();
        }
        let result = if unwanted { Err(left()) } else { run() };
        *lock(&self.run) = None;
        result
    }

    /// Whoever took a seat does not want it any more.
    fn given_up(&self, index: usize, deserted: bool) {
        if let Some((seat, token)) = &*lock(&self.run)
            && seat.map_or(deserted, |seat| seat == index)
        {
            token.cancel();
        }
    }

    /// Waits for the run and tells everybody. It computed from `since` on, where that is later than it was begun.
    pub(crate) fn finish(
        self: &Arc<Self>,
        closed: Closed,
        since: Option<Instant>,
        doorbell: &dyn Doorbell,
    ) -> (u64, u64) {
        let Closed { members, starts, rows, padded, now, on, run } = closed;
        let since = since.unwrap_or(now);
        let ran = match members.is_empty() {
            true => Ok(0),
            false => run.and_then(|run| self.end_rows(run, (rows, padded), since)),
        };
        self.tell(&members, &starts, ran, (now, on));
        let wait_ns = members.iter().map(|member| nanos(now - member.taken)).max().unwrap_or(0);
        let run_ns = if members.is_empty() { 0 } else { nanos(since.elapsed()) };
        for home in self.seats.homes() {
            if !doorbell.ring(home, self.clone()) {
                self.seats.wake(home);
            }
        }
        (wait_ns, run_ns)
    }

    fn tell(&self, members: &[Member], starts: &[usize], ran: Result<u64>, (now, on): (Instant, On<'_>)) {
        match ran {
            Ok(run_ns) => {
                self.seats.settle(members.iter().zip(starts).enumerate().map(|(at, (member, &start))| {
                    let queue_ns = nanos(now - member.taken);
                    (member.index, Fate { result: Ok(Found::Rows(start)), queue_ns, run_ns, counts: at == 0 })
                }))
            }
            // A batch is cancelled when everybody has left or the last deadline has passed.
            Err(error) if members.len() == 1 || error.code == Code::Cancelled => {
                let fate = |member: &Member| (member.index, Fate::failed(error.clone(), member, now));
                self.seats.settle(members.iter().map(fate));
            }
            Err(_) => {
                for (member, &start) in members.iter().zip(starts) {
                    self.seats.settle([(member.index, self.run_alone(member, start, on))]);
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
                // SAFETY: within the slab, which has room for `capacity` rows; the first row is another one.
                unsafe { std::ptr::copy(start.as_ptr(), start.as_ptr().add(row * row_bytes), *row_bytes) };
            }
            slab.input_mut(index).narrow(&with_rows(shape, padded)?)?;
        }
        match instance {
            Some(instance) => {
                // SAFETY: the slab is left alone until `end_rows`, which whoever has the closed batch calls.
                let flight = unsafe { self.warm.begin(instance, slab)? };
                Ok(Run::InTheAir(flight, instance))
            }
            None => {
                let begun = Instant::now();
                self.warm.execute(slab)?;
                Ok(Run::Over(nanos(begun.elapsed())))
            }
        }
    }

    /// Waits for the run; how long it took, in nanoseconds.
    fn end_rows(&self, run: Run, (rows, padded): (usize, usize), since: Instant) -> Result<u64> {
        // SAFETY: as in `begin_rows`.
        let slab = unsafe { &mut *self.slab.get() };
        let run_ns = match run {
            Run::Over(run_ns) => run_ns,
            Run::InTheAir(flight, instance) => {
                self.warm.finish(instance, flight, slab)?;
                nanos(since.elapsed())
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
    fn run_alone(&self, member: &Member, start: usize, on: On<'_>) -> Fate {
        let begun = Instant::now();
        if begun >= member.deadline {
            return Fate::failed(late(), member, begun);
        }
        if self.seats.has_left(member.index) {
            return Fate::failed(left(), member, begun);
        }
        let mut lease = Lease::take(self.warm.clone(), 0);
        let filled = self.fill(&mut lease, member.rows, start);
        let run = || lease.run_on(on.instance());
        let result = filled.and_then(|()| self.cancellable(on, member.deadline, Some(member.index), run));
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
        batcher.give_slab(slab, self.bytes, self.class);
    }
}

impl Fate {
    fn failed(error: Error, member: &Member, now: Instant) -> Fate {
        Fate { result: Err(error), queue_ns: nanos(now - member.taken), run_ns: 0, counts: false }
    }
}

/// What becomes of a run that nobody waits for.
fn left() -> Error {
    Error::new(Code::Cancelled, "nobody waits for the run any more")
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
