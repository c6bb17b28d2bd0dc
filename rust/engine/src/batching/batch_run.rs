//! The run of a batch, on a thread of the pool or of a device: it is closed, run and settled.
//!
//! A batch that fails is run again request by request, so that one bad row fails alone.
//! Not here: its memory (`batch`), who may write and read when (`row_slots`).
#![allow(unsafe_code, reason = "the slab belongs to the worker once the batch is closed")]

use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::TensorView;

use super::batch::{Batch, Closed, Fate, Found, InFlight, Run};
use super::row_slots::Member;
use crate::queue::RunTimes;
use crate::sync::lock;
use crate::time::nanos;
use crate::workers::{Begun, On, Runner, Task, late};

impl Task for Batch {
    /// A batch that has room grows instead.
    fn goes_ahead(&self) -> bool {
        self.seats.look().is_some_and(|waiting| waiting.full)
    }

    fn run(self: Arc<Self>, runner: &Runner) -> RunTimes {
        let on = On::Thread(runner);
        let closed = self.close(true);
        let since = closed.at;
        let in_flight = self.begin_run(closed, on);
        self.settle(in_flight, on, since)
    }

    fn begin(self: Arc<Self>, instance: usize, idle: bool) -> bool {
        let in_flight = self.begin_run(self.close(idle), On::Instance(instance));
        *lock(&self.in_flight) = Some(in_flight);
        true
    }

    fn finish(self: Arc<Self>, instance: usize, begun: Begun) -> RunTimes {
        let in_flight = lock(&self.in_flight).take();
        let settle = |in_flight| self.settle(in_flight, On::Instance(instance), begun.since);
        in_flight.map_or_else(RunTimes::default, settle)
    }
}

impl Batch {
    /// Lets nobody in any more. `waits` for rows that are expected.
    fn close(&self, waits: bool) -> Closed {
        let batcher = &self.version.batcher;
        if waits && !batcher.is_off() {
            self.seats.wait(|waiting| batcher.patience(waiting));
        }
        let at = Instant::now();
        let (members, expired): (Vec<_>, Vec<_>) =
            self.seats.close().into_iter().partition(|member| member.deadline > at);
        self.seats.settle(expired.iter().map(|member| (member.index, Fate::failed(late(), member, at))));
        let starts = self.close_gaps(&members);
        let rows = members.iter().map(|member| member.rows).sum();
        let padded = if batcher.is_off() { rows } else { batcher.padded(rows).min(self.capacity) };
        Closed { members, starts, rows, padded, at }
    }

    /// Begins the run of a closed batch, on the thread of an instance or else to its end.
    fn begin_run(&self, closed: Closed, on: On<'_>) -> InFlight {
        let run = match closed.members.iter().map(|member| member.deadline).max() {
            None => Ok(Run::Over(0)),
            Some(latest) => self.cancellable(on, latest, None, || self.begin_rows(&closed, on.instance())),
        };
        InFlight { closed, run }
    }

    /// Runs for one seat or for everybody; whoever gives it up meanwhile cancels it.
    fn cancellable<T>(
        &self,
        on: On<'_>,
        until: Instant,
        seat: Option<usize>,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(running) = on.begin(&self.version.runs, until) else { return run() };
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

    /// Waits for the run and tells everybody. It computed from `since` on.
    fn settle(self: &Arc<Self>, in_flight: InFlight, on: On<'_>, since: Instant) -> RunTimes {
        let InFlight { closed, run } = in_flight;
        let members = &closed.members;
        let ran = match members.is_empty() {
            true => Ok(0),
            false => run.and_then(|run| self.end_rows(&closed, run, since)),
        };
        self.tell(&closed, ran, on);
        let wait_ns = members.iter().map(|member| nanos(closed.at - member.taken)).max().unwrap_or(0);
        let run_ns = if members.is_empty() { 0 } else { nanos(since.elapsed()) };
        for home in self.seats.homes() {
            if !self.version.doorbell.ring(home, self.clone()) {
                self.seats.wake(home);
            }
        }
        RunTimes { wait_ns, run_ns }
    }

    fn tell(&self, closed: &Closed, ran: Result<u64>, on: On<'_>) {
        let Closed { members, starts, at, .. } = closed;
        match ran {
            Ok(run_ns) => {
                self.seats.settle(members.iter().zip(starts).enumerate().map(|(place, (member, &start))| {
                    let (result, queue_ns) = (Ok(Found::Rows(start)), nanos(*at - member.taken));
                    (member.index, Fate { result, queue_ns, run_ns, counts: place == 0 })
                }))
            }
            // A batch is cancelled when everybody has left or the last deadline has passed.
            Err(error) if members.len() == 1 || error.code == Code::Cancelled => {
                let fate = |member: &Member| (member.index, Fate::failed(error.clone(), member, *at));
                self.seats.settle(members.iter().map(fate));
            }
            Err(_) => {
                for (member, &start) in members.iter().zip(starts) {
                    self.seats.settle([(member.index, self.run_alone(member, start, on))]);
                }
            }
        }
    }

    /// Begins to run the first rows of the slab, filled up.
    fn begin_rows(&self, closed: &Closed, instance: Option<usize>) -> Result<Run> {
        let &Closed { rows, padded, .. } = closed;
        // SAFETY: the batch is closed and nothing is settled: nobody else touches the slab.
        let slab = unsafe { &mut *self.slab.get() };
        self.fill_up(slab, rows, padded)?;
        match instance {
            Some(instance) => {
                // SAFETY: the slab is left alone until `end_rows`, which whoever has the closed batch calls.
                let flight = unsafe { self.version.executable.begin(instance, slab)? };
                Ok(Run::InTheAir(flight, instance))
            }
            None => {
                let begun = Instant::now();
                self.version.executable.execute(slab)?;
                Ok(Run::Over(nanos(begun.elapsed())))
            }
        }
    }

    /// Waits for the run; how long it took, in nanoseconds.
    fn end_rows(&self, closed: &Closed, run: Run, since: Instant) -> Result<u64> {
        let &Closed { rows, padded, .. } = closed;
        // SAFETY: as in `begin_rows`.
        let slab = unsafe { &mut *self.slab.get() };
        let run_ns = match run {
            Run::Over(run_ns) => run_ns,
            Run::InTheAir(flight, instance) => {
                self.version.executable.finish(instance, flight, slab)?;
                nanos(since.elapsed())
            }
        };
        for index in 0..slab.outputs() {
            check_rows(&slab.output(index)?, padded)?;
        }
        if !self.version.batcher.is_off() {
            self.version.batcher.ran(rows, padded, run_ns);
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
        let executable = &self.version.executable;
        let mut binding = Box::new(executable.new_binding());
        let filled = self.copy_rows(&mut binding, start, member.rows);
        let run = || executable.execute_on(on.instance(), &mut binding);
        let result = filled.and_then(|()| self.cancellable(on, member.deadline, Some(member.index), run));
        let (queue_ns, run_ns) = (nanos(begun - member.taken), nanos(begun.elapsed()));
        Fate { result: result.map(|()| Found::Alone(binding)), queue_ns, run_ns, counts: true }
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

fn check_rows(output: &TensorView<'_>, rows: usize) -> Result<()> {
    if output.shape.dims().first() == Some(&(rows as i64)) {
        return Ok(());
    }
    Err(Error::new(
        Code::BackendFailed,
        format!("a batch of {rows} rows gave an output of shape {:?}; remove max_batch", output.shape),
    ))
}
