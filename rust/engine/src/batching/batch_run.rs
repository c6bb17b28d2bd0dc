//! The run of a batch on a worker: it is closed, run, and its requests are settled.
//!
//! If a batch fails, its requests are run again one by one, so that one bad row fails alone.
//! Not here: its memory (`batch`), when rows may be written and read (`row_slots`).
#![allow(unsafe_code, reason = "the slab belongs to the worker once the batch is closed")]

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::TensorView;

use super::batch::{Batch, BatchInFlight, BatchRun, ClosedBatch, OutputLocation, RowsOutcome, RunToken};
use super::row_slots::ReadyRows;
use crate::queue::RunTimes;
use crate::sync::lock;
use crate::time::Instant;
use crate::time::nanos;
use crate::workers::{DeviceTimes, Executor, RunSlot, Task, late_error};

impl Task for Batch {
    /// A batch that has room grows instead.
    fn may_overlap(&self) -> bool {
        self.slots.waiting_rows().is_some_and(|waiting| waiting.full)
    }

    fn run(self: Arc<Self>, slot: &RunSlot) -> RunTimes {
        let executor = Executor::PoolThread(slot);
        let closed = self.close(true);
        let since = closed.closed_at;
        let in_flight = self.begin_run(closed, executor);
        self.settle(in_flight, executor, since)
    }

    fn begin(self: Arc<Self>, instance: usize, idle: bool) -> bool {
        let in_flight = self.begin_run(self.close(idle), Executor::Instance(instance));
        *lock(&self.in_flight) = Some(in_flight);
        true
    }

    fn finish(self: Arc<Self>, instance: usize, times: DeviceTimes) -> RunTimes {
        let in_flight = lock(&self.in_flight).take();
        let settle = |in_flight| self.settle(in_flight, Executor::Instance(instance), times.computes_from);
        in_flight.map_or_else(RunTimes::default, settle)
    }
}

impl Batch {
    /// Closes the batch: it takes no more requests. If `waits` is set, it first waits for rows that are expected.
    fn close(&self, waits: bool) -> ClosedBatch {
        let batcher = &self.context.batcher;
        if waits && !batcher.is_off() {
            self.slots.wait(|waiting, now| batcher.wait_until(waiting, now));
        }
        let closed_at = Instant::now();
        let (requests, expired): (Vec<_>, Vec<_>) =
            self.slots.close().into_iter().partition(|request| request.deadline > closed_at);
        self.slots.settle(
            expired
                .iter()
                .map(|request| (request.index, RowsOutcome::failed(late_error(), request, closed_at))),
        );
        let starts = self.compact_rows(&requests);
        let rows = requests.iter().map(|request| request.rows).sum();
        let padded = if batcher.is_off() { rows } else { batcher.padded_rows(rows).min(self.capacity) };
        ClosedBatch { requests, starts, rows, padded, closed_at }
    }

    /// Begins the run of a closed batch. On a pool thread this runs it to its end.
    fn begin_run(&self, closed: ClosedBatch, executor: Executor<'_>) -> BatchInFlight {
        let run = match closed.requests.iter().map(|request| request.deadline).max() {
            None => Ok(BatchRun::Finished(0)),
            Some(latest) => {
                self.run_cancellable(executor, latest, None, || self.begin_rows(&closed, executor.instance()))
            }
        };
        BatchInFlight { closed, run }
    }

    /// Runs one request, or the batch if `slot` is `None`. The run is cancelled if what it is for has left.
    fn run_cancellable<T>(
        &self,
        executor: Executor<'_>,
        until: Instant,
        slot: Option<usize>,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(guard) = executor.begin(&self.context.runs, until) else { return run() };
        *lock(&self.cancellation) = Some(RunToken { slot, token: guard.token() });
        // A request that left before the token was there could not cancel the run.
        let unwanted = match slot {
            Some(index) => self.slots.has_left(index),
            None => self.slots.waiting_rows().is_none(),
        };
        if unwanted {
            guard.token().cancel();
        }
        let result = if unwanted { Err(unwanted_error()) } else { run() };
        *lock(&self.cancellation) = None;
        result
    }

    /// Finishes the run and settles all requests. The run computed from `since` on.
    fn settle(
        self: &Arc<Self>,
        in_flight: BatchInFlight,
        executor: Executor<'_>,
        since: Instant,
    ) -> RunTimes {
        let BatchInFlight { closed, run } = in_flight;
        let requests = &closed.requests;
        let result = match requests.is_empty() {
            true => Ok(0),
            false => run.and_then(|run| self.end_rows(&closed, run, since)),
        };
        self.settle_requests(&closed, result, executor, since);
        let wait_ns =
            requests.iter().map(|request| nanos(closed.closed_at - request.queued_at)).max().unwrap_or(0);
        let run_ns = if requests.is_empty() { 0 } else { nanos(since.elapsed()) };
        for thread in self.slots.settled_threads() {
            if !self.context.batch_waker.wake_thread(thread, self.clone()) {
                self.slots.wake(thread);
            }
        }
        RunTimes { wait_ns, run_ns }
    }

    fn settle_requests(
        &self,
        closed: &ClosedBatch,
        result: Result<u64>,
        executor: Executor<'_>,
        since: Instant,
    ) {
        let ClosedBatch { requests, starts, closed_at, .. } = closed;
        match result {
            Ok(run_ns) => self.slots.settle(requests.iter().zip(starts).enumerate().map(
                |(place, (request, &start))| {
                    let outcome = RowsOutcome {
                        result: Ok(OutputLocation::Slab(start)),
                        failed_inputs: None,
                        queue_ns: nanos(*closed_at - request.queued_at),
                        run_ns,
                        represents_run: place == 0,
                    };
                    (request.index, outcome)
                },
            )),
            // A batch is cancelled if all requests have left or the latest deadline has passed.
            Err(error) if requests.len() == 1 || error.code == Code::Cancelled => {
                let run_ns = nanos(since.elapsed()).max(1);
                let outcome = |(place, (request, &start)): (usize, (&ReadyRows, &usize))| {
                    let failed = RowsOutcome::failed(error.clone(), request, *closed_at);
                    let failed_inputs = Some(OutputLocation::Slab(start));
                    let represents_run = place == 0;
                    (request.index, RowsOutcome { failed_inputs, run_ns, represents_run, ..failed })
                };
                self.slots.settle(requests.iter().zip(starts).enumerate().map(outcome));
            }
            Err(_) => {
                for (request, &start) in requests.iter().zip(starts) {
                    self.slots.settle([(request.index, self.run_alone(request, start, executor))]);
                }
            }
        }
    }

    /// Begins to run the first rows of the slab, padded.
    fn begin_rows(&self, closed: &ClosedBatch, instance: Option<usize>) -> Result<BatchRun> {
        let &ClosedBatch { rows, padded, .. } = closed;
        // SAFETY: the batch is closed and nothing is settled, so only this worker touches the slab.
        let slab = unsafe { &mut *self.slab.get() };
        self.pad_rows(slab, rows, padded)?;
        match instance {
            Some(instance) => {
                // SAFETY: the slab is not touched before `end_rows`, which gets what is returned here.
                let flight = unsafe { self.context.executable.begin(instance, slab)? };
                Ok(BatchRun::OnDevice(flight, instance))
            }
            None => {
                let begun = Instant::now();
                self.context.executable.execute(slab)?;
                Ok(BatchRun::Finished(nanos(begun.elapsed())))
            }
        }
    }

    /// Finishes the run; returns how long it took, in nanoseconds.
    fn end_rows(&self, closed: &ClosedBatch, run: BatchRun, since: Instant) -> Result<u64> {
        let &ClosedBatch { rows, padded, .. } = closed;
        // SAFETY: as in `begin_rows`.
        let slab = unsafe { &mut *self.slab.get() };
        let run_ns = match run {
            BatchRun::Finished(run_ns) => run_ns,
            BatchRun::OnDevice(flight, instance) => {
                self.context.executable.finish(instance, flight, slab)?;
                nanos(since.elapsed())
            }
        };
        for index in 0..slab.outputs() {
            check_rows(&slab.output(index)?, padded)?;
        }
        if !self.context.batcher.is_off() {
            self.context.batcher.record_run(rows, padded, run_ns);
        }
        Ok(run_ns)
    }

    /// Runs one request, whose rows begin at `start`, in buffers of its own.
    fn run_alone(&self, request: &ReadyRows, start: usize, executor: Executor<'_>) -> RowsOutcome {
        let begun = Instant::now();
        if begun >= request.deadline {
            return RowsOutcome::failed(late_error(), request, begun);
        }
        if self.slots.has_left(request.index) {
            return RowsOutcome::failed(unwanted_error(), request, begun);
        }
        let executable = &self.context.executable;
        let mut binding = Box::new(executable.new_binding());
        let filled = self.copy_rows(&mut binding, start, request.rows);
        let run = || executable.execute_on(executor.instance(), &mut binding);
        let result =
            filled.and_then(|()| self.run_cancellable(executor, request.deadline, Some(request.index), run));
        let (queue_ns, run_ns) = (nanos(begun - request.queued_at), nanos(begun.elapsed()).max(1));
        let buffers = OutputLocation::OwnBuffers(binding);
        let (result, failed_inputs) = match result {
            Ok(()) => (Ok(buffers), None),
            Err(error) => (Err(error), Some(buffers)),
        };
        RowsOutcome { result, failed_inputs, queue_ns, run_ns, represents_run: true }
    }
}

impl RowsOutcome {
    /// The outcome of a request that was not run.
    fn failed(error: Error, request: &ReadyRows, now: Instant) -> RowsOutcome {
        RowsOutcome {
            result: Err(error),
            failed_inputs: None,
            queue_ns: nanos(now - request.queued_at),
            run_ns: 0,
            represents_run: false,
        }
    }
}

/// The error of a run that nothing waits for.
fn unwanted_error() -> Error {
    Error::new(Code::Cancelled, "nothing waits for the run any more")
}

fn check_rows(output: &TensorView<'_>, rows: usize) -> Result<()> {
    if output.shape.dims().next() == Some(rows as i64) {
        return Ok(());
    }
    Err(Error::new(
        Code::BackendFailed,
        format!("a batch of {rows} rows gave an output of shape {:?}; remove max_batch", output.shape),
    ))
}
