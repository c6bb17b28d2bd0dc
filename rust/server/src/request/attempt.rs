//! One version's attempt at a request: the phases that the version answers for.
//!
//! ```text
//! admit -> fetch if it is out of memory -> decode -> run -> write the response
//! ```
//! Not here: which version it is (`infer`), and what follows if it fails (`attempts`).
//!
//! Next: `tensors`, `outputs`.

use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::trial::outcome::RunStage;
use headgate_engine::Instant;
use headgate_engine::runtime::cancel::CancelScope;
use headgate_engine::{BatchedRun, BufferLease, LoadedModel, Placement, RunResult, Waiter};

use crate::after::record::RecordHandle;
use crate::after::record::awaited_run::AwaitedRun;
use crate::request::deadline::Deadlines;
use crate::request::fallback::FallbackState;
use crate::request::inference::{ParsedRequest, ResponseLayout};
use crate::request::outputs::{self, Outputs, ResponseFormat};
use crate::request::tensors::{self, DecodedInputs, RunTarget};
use crate::request::{large_request, large_response};
use crate::thread::io::Io;

/// A request on its way through one version.
pub struct Attempt {
    /// What is booked on the version.
    pub record: RecordHandle,
    /// Until when the version and the request are waited for.
    pub deadlines: Deadlines,
    /// The versions that the request has been given to.
    pub fallbacks: FallbackState,
    /// The class of the caller; 0 is run first.
    pub class: u8,
}

impl Attempt {
    /// The request as the engine queues it.
    fn waiter(&self) -> Waiter {
        let thread = self.record.routed.thread;
        Waiter { thread, deadline: self.deadlines.version, class: self.class }
    }

    /// The time that the document gives the version, if a run was going on when it was over.
    pub fn overran_within(&self) -> Option<Duration> {
        let routed = &self.record.routed;
        let after = routed.endpoint.fallback.after;
        let after = after.filter(|_| !routed.is_direct() && self.fallbacks.is_first(routed.index));
        let timeout = routed.endpoint.timeout;
        self.deadlines.has_overrun_document().then(|| after.map_or(timeout, |after| after.min(timeout)))
    }

    /// Has the version answer the request; the response is written to `out`.
    ///
    /// # Errors
    /// Those of every phase.
    pub async fn serve(
        &mut self,
        io: &Io,
        request: &ParsedRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<ResponseLayout> {
        // Mostly the model is in memory and all work is short: then nothing is waited for.
        let mut progress = self.admit(io, request, out)?;
        loop {
            progress = match progress {
                Progress::Answered(sent) => return Ok(sent),
                Progress::OutOfMemory => {
                    let loaded = Box::pin(self.fetch(io)).await?;
                    self.check_remaining_time(io)?;
                    self.decode(io, request, out, loaded)?
                }
                Progress::LongInputs(loaded) => {
                    let inputs = Box::pin(self.decode_elsewhere(request, loaded)).await?;
                    self.run(io, request, out, inputs)?
                }
                Progress::NotHere(inputs) => {
                    self.record.sample.run = Some(self.run_elsewhere(io, inputs).await?);
                    self.write(io, request, out)?
                }
                Progress::LargeOutputs => {
                    let until = self.deadlines.version;
                    return Box::pin(large_response::write(request, &mut self.record, until, out)).await;
                }
            };
        }
    }

    /// Admits the request to the version, and goes on as far as nothing must be waited for.
    ///
    /// # Errors
    /// Those of its breaker, of the deadline and of the queue; those of the phases behind it.
    fn admit(&mut self, io: &Io, request: &ParsedRequest<'_>, out: &mut Vec<u8>) -> Result<Progress> {
        self.record.pass_breaker(io)?;
        self.check_remaining_time(io)?;
        match self.record.version().payload.model.hold() {
            Some(loaded) => self.decode(io, request, out, loaded),
            None => Ok(Progress::OutOfMemory),
        }
    }

    /// Waits for a version that is out of memory.
    async fn fetch(&mut self, io: &Io) -> Result<LoadedModel> {
        let model = &self.record.version().payload.model;
        let loaded = io.shared.fetcher.fetch(model, self.deadlines.version).await?;
        self.record.timing.was_disturbed = true;
        Ok(loaded)
    }

    /// Refuses the request if too little time is left for a run: what is refused here has cost no work.
    fn check_remaining_time(&mut self, io: &Io) -> Result<()> {
        let now = Instant::now();
        self.record.timing.admitted = now;
        let left_ns = self.deadlines.version.nanos_since(now);
        if left_ns > self.record.version().payload.model.shortest_run_ns() {
            return Ok(());
        }
        self.check_short_time(io, now)
    }

    /// As [`Attempt::check_remaining_time`] for a request that has hardly the time of a run left at `now`.
    #[cold]
    fn check_short_time(&self, io: &Io, now: Instant) -> Result<()> {
        let left = self.deadlines.version.saturating_duration_since(now);
        if left.is_zero() {
            self.record.count_hopeless();
            return Err(no_time_error());
        }
        let now_ns = || io.shared.ns_at(now);
        let model = &self.record.version().payload.model;
        let Some(run) = model.takes_longer_than(left, now_ns) else { return Ok(()) };
        self.record.count_hopeless();
        Err(Error::new(
            Code::DeadlineExceeded,
            format!("a run takes about {run:.1?}, and {left:.1?} are left before the deadline"),
        ))
    }

    /// Decodes the inputs, unless that takes long, and goes on.
    ///
    /// # Errors
    /// `invalid_argument`; those of the queue; those of the phases behind it.
    fn decode(
        &mut self,
        io: &Io,
        request: &ParsedRequest<'_>,
        out: &mut Vec<u8>,
        loaded: LoadedModel,
    ) -> Result<Progress> {
        // The queue checks again; a refusal must not cost what decoding costs.
        loaded.check_admission(self.class)?;
        let ParsedRequest { envelope, body, .. } = *request;
        if !envelope.outputs.is_empty() {
            envelope.check_outputs(&loaded.signature().outputs)?;
        }
        if body.len() > large_request::INLINE && large_request::takes_long(envelope) {
            return Ok(Progress::LongInputs(loaded));
        }
        let target = RunTarget { loaded, waiter: self.waiter() };
        let memory = &mut self.record.memory;
        let count_bytes = &mut |bytes| memory.add_bytes(io, bytes);
        let inputs =
            tensors::with_scratch(|scratch| tensors::decode(envelope, body, target, scratch, count_bytes))?;
        self.record.timing.decoded(Instant::now());
        self.run(io, request, out, inputs)
    }

    async fn decode_elsewhere(
        &mut self,
        request: &ParsedRequest<'_>,
        loaded: LoadedModel,
    ) -> Result<DecodedInputs> {
        let target = RunTarget { loaded, waiter: self.waiter() };
        let inputs = large_request::decode(request, target, &mut self.record.memory).await?;
        self.record.timing.decoded(Instant::now());
        Ok(inputs)
    }

    /// Runs on this thread, if the version's runs are made here, and goes on.
    ///
    /// # Errors
    /// `deadline_exceeded` before the run; those of the run and of the response.
    fn run(
        &mut self,
        io: &Io,
        request: &ParsedRequest<'_>,
        out: &mut Vec<u8>,
        inputs: DecodedInputs,
    ) -> Result<Progress> {
        if self.record.timing.phase_end >= self.deadlines.version {
            return Err(no_time_error());
        }
        let mut lease = match inputs {
            DecodedInputs::Own(lease) if lease.model().placement() == Placement::Inline => lease,
            inputs => return Ok(Progress::NotHere(inputs)),
        };
        let begun_ns = io.shared.ns_at(self.record.timing.phase_end);
        let result = run_watched(io, &mut lease, begun_ns);
        if result.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
            // The watchdog ended it, because it held up the thread. In the pool it may take the time that the request has.
            self.record.timing.was_disturbed = true;
            return Ok(Progress::NotHere(DecodedInputs::Own(lease)));
        }
        self.record.ran_inline(begun_ns, Instant::now());
        let lease = self.lease_of(result, lease)?;
        self.record.sample.run = Some(RunResult::Single(lease));
        self.write(io, request, out)
    }

    async fn run_elsewhere(&mut self, io: &Io, inputs: DecodedInputs) -> Result<RunResult> {
        match inputs {
            DecodedInputs::Own(lease) => self.run_in_pool(io, lease).await.map(RunResult::Single),
            DecodedInputs::Batched(batched) => self.run_together(io, batched).await,
        }
    }

    async fn run_together(&mut self, io: &Io, mut batched: BatchedRun) -> Result<RunResult> {
        io.shared.pool.submit_batched(&mut batched);
        // A request that is late, or whose client left, gives its rows up, and the batch goes on without it.
        let batch = batched.batch().clone();
        let Ok(done) = tokio::time::timeout_at(self.deadlines.version.into(), batched.outcome()).await else {
            if batch.has_begun() {
                self.overrun();
            }
            return Err(late_error());
        };
        self.record.ran_pooled(done.queue_ns, done.run_ns, done.represents_run, Instant::now());
        done.result.map_err(|error| {
            self.record.run_failed(|| done.failed_inputs.map(|inputs| *inputs));
            self.run_error(error)
        })
    }

    async fn run_in_pool(&mut self, io: &Io, mut lease: BufferLease) -> Result<BufferLease> {
        // A run may outlive its request if the client leaves or the deadline passes, and so must its memory.
        lease.attach(self.record.memory.take_large_boxed());
        let run = io.shared.pool.submit(lease, self.waiter())?;
        let mut run = AwaitedRun::new(run, self.record.routed.clone());
        let Ok(outcome) = tokio::time::timeout_at(self.deadlines.version.into(), &mut run).await else {
            if run.has_begun() {
                self.overrun();
                run.hand_over_later(self.record.copies.take());
            }
            return Err(late_error());
        };
        let outcome = outcome?;
        self.record.ran_pooled(outcome.queue_ns, outcome.run_ns, true, Instant::now());
        self.lease_of(outcome.result, outcome.lease).map_err(|error| self.run_error(error))
    }

    /// The buffers of a run that succeeded.
    fn lease_of(&mut self, result: Result<()>, lease: BufferLease) -> Result<BufferLease> {
        match result {
            Ok(()) => Ok(lease),
            Err(error) => {
                self.record.run_failed(|| Some(RunResult::Single(lease)));
                Err(error)
            }
        }
    }

    /// The error of a run that failed in the pool. The watchdog may cancel a run at its deadline a moment before the request's own
    /// clock does: that is a missed deadline.
    fn run_error(&mut self, error: Error) -> Error {
        if error.code != Code::Cancelled {
            return error;
        }
        self.overrun();
        late_error()
    }

    /// The run went on when the deadline passed.
    fn overrun(&mut self) {
        self.deadlines.overrun();
        self.record.timing.stage = RunStage::Begun;
    }

    /// Writes the response of the run, unless it is large.
    ///
    /// # Errors
    /// `invalid_argument`; `overloaded` for want of memory.
    fn write(&mut self, io: &Io, request: &ParsedRequest<'_>, out: &mut Vec<u8>) -> Result<Progress> {
        self.record.timing.stage = RunStage::Succeeded;
        let Some(WrittenResponse { sent, output_bytes }) = self.write_unless_large(request, out)? else {
            return Ok(Progress::LargeOutputs);
        };
        self.record.memory.add_bytes(io, out.len() + output_bytes)?;
        Ok(Progress::Answered(sent))
    }

    /// Writes the response. `None` for a large one, whose outputs are selected and which must be written elsewhere.
    fn write_unless_large(
        &self,
        request: &ParsedRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<WrittenResponse>> {
        let ParsedRequest { envelope, wire_format, .. } = *request;
        let ran = self.record.sample.run.as_ref().expect("a response follows a run");
        tensors::with_scratch(|scratch| {
            envelope.select_outputs(&ran.model().signature().outputs, &mut scratch.selection)?;
            let routed = &self.record.routed;
            let head = outputs::head(routed, envelope.id.as_deref());
            let (form, marks_final) = (envelope.form, envelope.parameters.marks_final);
            let format = ResponseFormat { wire_format, form, marks_final, rows: ran.rows() };
            let lists = &mut scratch.outputs;
            let outputs = Outputs::of(&scratch.selection, ran, routed, wire_format, lists)?;
            let bytes = outputs.bytes();
            if large_response::is_large(&outputs, bytes, head.id) {
                lists.keep(outputs);
                return Ok(None);
            }
            let tensors = outputs.tensors(lists)?;
            let sent = outputs::write(&format, &head, &tensors, out)?;
            lists.keep_tensors(tensors);
            lists.keep(outputs);
            Ok(Some(WrittenResponse { sent, output_bytes: bytes }))
        })
    }
}

/// How far a request came without waiting.
enum Progress {
    /// Its response is written.
    Answered(ResponseLayout),
    /// Its model is out of memory.
    OutOfMemory,
    /// Its inputs take long to decode.
    LongInputs(LoadedModel),
    /// Its run must be made elsewhere.
    NotHere(DecodedInputs),
    /// Its response is large. The run is kept with what is booked, and the outputs are selected.
    LargeOutputs,
}

/// Runs on this thread, which the watchdog looks after meanwhile.
fn run_watched(io: &Io, lease: &mut BufferLease, begun_ns: u64) -> Result<()> {
    let _heartbeat = io.shared.heartbeats[io.thread].begin(lease.model(), begun_ns);
    let _scope = CancelScope::begin();
    lease.run()
}

/// A response that was written at once.
struct WrittenResponse {
    sent: ResponseLayout,
    /// The size of the outputs that it was written from.
    output_bytes: usize,
}

/// The error of a request whose deadline passed before its run.
fn no_time_error() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the run began")
}

/// The error of a request whose deadline passed during its run.
fn late_error() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the run ended")
}
