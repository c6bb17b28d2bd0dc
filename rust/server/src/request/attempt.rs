//! One version's attempt at a request: the phases that the version answers for.
//!
//! ```text
//! admit -> fetch if it is out of memory -> decode -> run -> write the response
//! ```
//! Not here: which version it is (`infer`), and what follows if it fails (`attempts`).
//!
//! Next: `tensors`, `outputs`.

use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_core::trial::outcome::RunStage;
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
use crate::thread::io::{self, Io};

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
    pub async fn serve(&mut self, request: &ParsedRequest<'_>, out: &mut Vec<u8>) -> Result<ResponseLayout> {
        // Mostly the model is in memory and the request is small: then nothing is waited for here.
        let admitted = match io::with(|io| self.admit(io, request))? {
            Some(admitted) => admitted,
            None => Box::pin(self.fetch_and_admit(request)).await?,
        };
        let inputs = match admitted {
            AdmittedRequest::Decoded(inputs) => inputs,
            AdmittedRequest::Long(loaded, begun) => {
                Box::pin(self.decode_elsewhere(request, loaded, begun)).await?
            }
        };
        let ran = match io::with(|io| self.run_inline(io, inputs))? {
            InlineRun::Ran(ran) => ran,
            InlineRun::NotHere(inputs) => self.run_elsewhere(inputs).await?,
        };
        self.record.timing.stage = RunStage::Succeeded;
        let written = self.write(request, &ran, out);
        if let Ok(None) = written {
            let until = self.deadlines.version;
            let (ran, sent) =
                Box::pin(large_response::write(request, &mut self.record, until, ran, out)).await;
            self.record.sample.run = ran;
            return sent;
        }
        self.record.sample.run = Some(ran);
        let WrittenResponse { sent, output_bytes } =
            written?.expect("a large response was written elsewhere");
        io::with(|io| self.record.memory.add_bytes(io, out.len() + output_bytes))?;
        Ok(sent)
    }

    /// Admits the request to the version, and decodes it unless that takes long. `None` if the model is out of memory.
    ///
    /// # Errors
    /// Those of its breaker, of the deadline and of the queue; `invalid_argument`.
    fn admit(&mut self, io: &Io, request: &ParsedRequest<'_>) -> Result<Option<AdmittedRequest>> {
        self.record.pass_breaker(io)?;
        let begun = self.check_remaining_time(io)?;
        match self.record.version().payload.model.hold() {
            Some(loaded) => self.decode_unless_long(io, request, loaded, begun).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for a version that is out of memory, and goes on as [`Attempt::admit`].
    async fn fetch_and_admit(&mut self, request: &ParsedRequest<'_>) -> Result<AdmittedRequest> {
        let fetcher = io::with(|io| io.shared.fetcher.clone());
        let model = &self.record.version().payload.model;
        let loaded = fetcher.fetch(model, self.deadlines.version).await?;
        self.record.timing.was_disturbed = true;
        io::with(|io| {
            let begun = self.check_remaining_time(io)?;
            self.decode_unless_long(io, request, loaded, begun)
        })
    }

    /// The present time, unless too little is left for a run: what is refused here has cost no work.
    fn check_remaining_time(&self, io: &Io) -> Result<Instant> {
        let now = Instant::now();
        let left = self.deadlines.version.saturating_duration_since(now);
        if left.is_zero() {
            self.record.count_hopeless();
            return Err(no_time_error());
        }
        let now_ns = || io.shared.ns_at(now);
        let model = &self.record.version().payload.model;
        let Some(run) = model.takes_longer_than(left, now_ns) else { return Ok(now) };
        self.record.count_hopeless();
        Err(Error::new(
            Code::DeadlineExceeded,
            format!("a run takes about {run:.1?}, and {left:.1?} are left before the deadline"),
        ))
    }

    /// Decodes a request that came this far at `begun`, unless that takes long.
    fn decode_unless_long(
        &mut self,
        io: &Io,
        request: &ParsedRequest<'_>,
        loaded: LoadedModel,
        begun: Instant,
    ) -> Result<AdmittedRequest> {
        // The queue checks again; a refusal must not cost what decoding costs.
        loaded.check_admission(self.class)?;
        request.envelope.check_outputs(&loaded.signature().outputs)?;
        if request.body.len() > large_request::INLINE && large_request::takes_long(request.envelope) {
            return Ok(AdmittedRequest::Long(loaded, begun));
        }
        let inputs = self.decode(io, request, loaded)?;
        self.record.timing.decoded(begun, Instant::now());
        Ok(AdmittedRequest::Decoded(inputs))
    }

    async fn decode_elsewhere(
        &mut self,
        request: &ParsedRequest<'_>,
        loaded: LoadedModel,
        begun: Instant,
    ) -> Result<DecodedInputs> {
        let target = RunTarget { loaded, waiter: self.waiter() };
        let inputs = large_request::decode(request, target, &mut self.record.memory).await?;
        self.record.timing.decoded(begun, Instant::now());
        Ok(inputs)
    }

    fn decode(&mut self, io: &Io, request: &ParsedRequest<'_>, loaded: LoadedModel) -> Result<DecodedInputs> {
        let target = RunTarget { loaded, waiter: self.waiter() };
        let memory = &mut self.record.memory;
        let count_bytes = &mut |bytes| memory.add_bytes(io, bytes);
        let ParsedRequest { envelope, body, .. } = *request;
        tensors::with_scratch(|scratch| tensors::decode(envelope, body, target, scratch, count_bytes))
    }

    /// Runs on this thread, if the version's runs are made here.
    ///
    /// # Errors
    /// `deadline_exceeded` before the run; those of the run.
    fn run_inline(&mut self, io: &Io, inputs: DecodedInputs) -> Result<InlineRun> {
        if self.record.timing.phase_end >= self.deadlines.version {
            return Err(no_time_error());
        }
        let mut lease = match inputs {
            DecodedInputs::Own(lease) if lease.model().placement() == Placement::Inline => lease,
            inputs => return Ok(InlineRun::NotHere(inputs)),
        };
        let begun_ns = io.shared.ns_at(self.record.timing.phase_end);
        let result = run_watched(io, &mut lease, begun_ns);
        if result.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
            // The watchdog ended it, because it held up the thread. In the pool it may take the time that the request has.
            self.record.timing.was_disturbed = true;
            return Ok(InlineRun::NotHere(DecodedInputs::Own(lease)));
        }
        self.record.ran_inline(begun_ns, Instant::now());
        self.lease_of(result, lease).map(|lease| InlineRun::Ran(RunResult::Single(lease)))
    }

    async fn run_elsewhere(&mut self, inputs: DecodedInputs) -> Result<RunResult> {
        match inputs {
            DecodedInputs::Own(lease) => self.run_in_pool(lease).await.map(RunResult::Single),
            DecodedInputs::Batched(batched) => self.run_together(batched).await,
        }
    }

    async fn run_together(&mut self, mut batched: BatchedRun) -> Result<RunResult> {
        io::with(|io| io.shared.pool.submit_batched(&mut batched));
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

    async fn run_in_pool(&mut self, mut lease: BufferLease) -> Result<BufferLease> {
        // A run may outlive its request if the client leaves or the deadline passes, and so must its memory.
        lease.attach(self.record.memory.take_large_boxed());
        let run = io::with(|io| io.shared.pool.submit(lease, self.waiter()))?;
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

    /// Writes the response. `None` for a large one, whose outputs are selected and which must be written elsewhere.
    fn write(
        &self,
        request: &ParsedRequest<'_>,
        ran: &RunResult,
        out: &mut Vec<u8>,
    ) -> Result<Option<WrittenResponse>> {
        let ParsedRequest { envelope, wire_format, .. } = *request;
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

/// A request that its version has admitted.
enum AdmittedRequest {
    /// Its inputs are ready to be run.
    Decoded(DecodedInputs),
    /// Decoding it takes long. It came this far then.
    Long(LoadedModel, Instant),
}

/// A run that is made on the thread of the request, if the version's runs are.
enum InlineRun {
    /// It is over.
    Ran(RunResult),
    /// It must be made elsewhere.
    NotHere(DecodedInputs),
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
