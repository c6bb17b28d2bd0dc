//! What is booked of a request on the version that it was routed to: counters, latencies, the access log, sketches.
//!
//! A record is booked once the response's bytes are with the socket, in the same turn of the IO thread, while the tensors are
//! still in its cache; or when the client is gone, and then it is marked undelivered. A record that is dropped before there was a
//! response (the client left while the request was queued) counts as cancelled. Each connection holds at most as many records as
//! it has requests in progress, so there is no queue that could grow.
//!
//! Next: `record/booking`.

pub mod awaited_run;
mod booking;
mod breaker_report;
pub mod non_finite;
pub mod routed_version;
pub mod timing;
mod trial;
mod trial_part;

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use headgate_core::breaker::BreakerPermit;
use headgate_core::error::Code;
use headgate_core::snapshot::Version;
use headgate_core::trial::outcome::{PassedOn, RunStage};
use headgate_engine::Instant;
use headgate_engine::RunResult;
use http::{HeaderName, HeaderValue};

use crate::after::access_log::{AccessLog, Protocol};
use crate::after::copies::DrawnCopies;
use crate::after::record::routed_version::RoutedVersion;
use crate::after::record::timing::PhaseTiming;
use crate::after::record::trial_part::TrialPart;
use crate::after::thread_state;
use crate::feedback::endpoint::{SlotDecision, X_RECEIPT};
use crate::headers::PreparedFields;
use crate::request_context::RequestContext;
use crate::serving::shared::LiveEndpoint;
use crate::serving::version::VersionState;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;
use crate::transport::delivery::Delivery;

static X_FALLBACK: HeaderName = HeaderName::from_static("x-headgate-fallback");

/// What is known of a request that a version was chosen for, until everything about it is booked.
pub struct RequestRecord {
    /// What is sketched after the response. Dropped before the version, which keeps the model of its tensors alive.
    pub sample: SketchSample,
    /// The version that answers.
    pub routed: RoutedVersion,
    /// The phases that it has reached.
    pub timing: PhaseTiming,
    /// Its share of the memory for requests in progress, until the response is out.
    pub memory: RequestMemory,
    /// The copies that were drawn of it.
    pub copies: Option<DrawnCopies>,
    /// What the access log says of it, if it was sampled.
    pub log: Option<Box<LogSample>>,
    /// What `x-headgate-fallback` says, if this version answers in another one's place.
    pub fallback_header: Option<HeaderValue>,
    /// The slot that chose the version, if its receipt is to say so.
    pub decided_by: Option<SlotDecision>,
    /// The permit of the version's breaker, until the outcome is reported to it.
    breaker_pass: Option<BreakerPermit>,
    /// Whether other versions were asked in this one's place.
    passed_on: Option<PassedOn>,
    /// Its part in the trial of its version, if it is evidence there.
    trial: Option<TrialPart>,
    outcome: Option<RequestOutcome>,
    is_booked: bool,
}

/// What is sketched of a request.
pub struct SketchSample {
    /// The tensors, once they were run.
    pub run: Option<RunResult>,
    /// Whether that run failed, so that there are no outputs.
    pub failed: bool,
    /// What the row sampler hashes.
    pub request_hash: u64,
}

/// What the access log needs beside the record.
pub struct LogSample {
    log: Arc<AccessLog>,
    protocol: Protocol,
    context: RequestContext,
}

impl LogSample {
    /// What the access log needs of a request, if this is one that it takes.
    pub fn draw(io: &Io, protocol: Protocol, context: &RequestContext) -> Option<Box<LogSample>> {
        let log = thread_state::sampled_log(io)?;
        Some(Box::new(LogSample { log, protocol, context: context.clone() }))
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
struct RequestOutcome {
    /// `None` for success.
    code: Option<Code>,
}

impl RequestRecord {
    /// The endpoint.
    pub fn endpoint(&self) -> &LiveEndpoint {
        &self.routed.endpoint
    }

    /// The version.
    pub fn version(&self) -> &Version<VersionState> {
        self.routed.version()
    }

    /// Adds the header that says in whose place the version answered; which one it is stands in the prepared fields.
    #[inline]
    pub fn add_fallback_header(&self, fields: &mut impl Extend<(HeaderName, HeaderValue)>) {
        if let Some(header) = &self.fallback_header {
            fields.extend([(X_FALLBACK.clone(), header.clone())]);
        }
    }

    /// Adds the receipt of an answer, if the endpoint takes feedback.
    #[inline]
    pub fn add_receipt(&self, io: &Io, fields: &mut impl Extend<(HeaderName, HeaderValue)>) {
        if let Some(receipt) = self.receipt(io) {
            fields.extend([(X_RECEIPT.clone(), receipt)]);
        }
    }

    /// The receipt of an answer, if the endpoint takes feedback.
    pub fn receipt(&self, io: &Io) -> Option<HeaderValue> {
        let receipts = self.version().payload.receipts.as_ref()?;
        // A version that answers in another one's place has requests that nobody chose for it.
        let decision = self.decided_by.filter(|_| self.fallback_header.is_none());
        receipts.issue(decision, io.shared.unix_ms_at(io.shared.now_ns()) / 1_000)
    }

    /// Counts a request for which too little time is left.
    pub fn count_hopeless(&self) {
        self.routed.shard().hopeless.add(1);
    }

    /// The run, which began on this thread at `begun_ns` of the gateway's clock, is over.
    pub fn ran_inline(&mut self, begun_ns: u64, now: Instant) {
        let run_ns = now.nanos_since(self.timing.phase_end);
        self.routed.shard().last_run_ns.set(begun_ns + run_ns);
        self.timing.stage = RunStage::Begun;
        self.version().payload.model.record_run(run_ns);
        self.timing.run_ns = Some(run_ns);
        self.timing.phase_end = now;
    }

    /// The run, on a pool thread, is over. `counts` is false if another request of the same batch stands for it.
    pub fn ran_pooled(&mut self, queue_ns: u64, run_ns: u64, counts: bool, now: Instant) {
        self.timing.counts_run = counts;
        self.timing.queue_ns = Some(queue_ns);
        self.timing.run_ns = (run_ns > 0).then_some(run_ns);
        if let Some(run_ns) = self.timing.run_ns {
            self.routed.shard().last_run_ns.set(io::with(|io| io.shared.ns_at(now)));
            self.timing.stage = RunStage::Begun;
            self.version().payload.model.record_run(run_ns);
        }
        self.timing.phase_end = now;
    }

    /// The run failed. Its inputs are kept if a copy of the request was drawn.
    pub fn run_failed(&mut self, inputs: impl FnOnce() -> Option<RunResult>) {
        if self.copies.is_some() {
            self.sample.run = inputs();
            self.sample.failed = true;
        }
    }

    /// The response exists: `None` is success.
    pub fn answered(&mut self, io: &Io, code: Option<Code>) {
        self.outcome = Some(RequestOutcome { code });
        // At once: whether the client reads its response says nothing about the version.
        self.report(io, code);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.is_booked {
            // Requests end on IO threads; without one the gateway is gone.
            io::try_with(|io| self.book_abandoned(io));
        }
    }
}

/// A [`RequestRecord`] in memory that its thread uses again: it is handed from phase to phase as a pointer, and becomes the
/// [`Delivery`] of its response without an allocation.
pub struct RecordHandle(Box<RecordSlot>);

/// Memory for one record.
#[derive(Default)]
pub(crate) struct RecordSlot(Option<RequestRecord>);

/// The most slots that a thread keeps.
const SPARE_SLOTS: usize = 256;

thread_local! {
    #[expect(clippy::vec_box, reason = "a handle is the box, and takes it along")]
    static SLOTS: RefCell<Vec<Box<RecordSlot>>> = const { RefCell::new(Vec::new()) };
}

fn take_slot() -> Box<RecordSlot> {
    SLOTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_slot(slot: Box<RecordSlot>) {
    // Fails only while the thread's locals are being destroyed.
    let _ = SLOTS.try_with(|slots| {
        let mut slots = slots.borrow_mut();
        if slots.len() < SPARE_SLOTS {
            slots.push(slot);
        }
    });
}

impl RecordHandle {
    /// Begins to account for a request whose first byte came at `received`, and which is counted with `memory`.
    pub fn begin(
        routed: RoutedVersion,
        received: Instant,
        request_hash: u64,
        memory: RequestMemory,
    ) -> RecordHandle {
        routed.shard().started.add(1);
        let mut slot = take_slot();
        slot.0 = Some(RequestRecord {
            sample: SketchSample { run: None, failed: false, request_hash },
            routed,
            timing: PhaseTiming::new(received),
            memory,
            copies: None,
            log: None,
            fallback_header: None,
            decided_by: None,
            breaker_pass: None,
            passed_on: None,
            trial: None,
            outcome: None,
            is_booked: false,
        });
        RecordHandle(slot)
    }

    /// Books a failed attempt after which another version was asked.
    pub fn pass_on(mut self, io: &Io, code: Code, passed_on: PassedOn) {
        self.passed_on = Some(passed_on);
        self.answered(io, Some(code));
    }

    /// The response's bytes are with the socket.
    pub fn delivered(self, now: Instant) {
        io::try_with(|io| self.0.delivered(io, now));
    }

    /// The record as what the transport tells when the response is out.
    pub fn into_delivery(self) -> Box<dyn Delivery> {
        self.0
    }
}

impl Delivery for RecordSlot {
    fn delivered(mut self: Box<Self>, io: &Io, now: Instant) {
        if let Some(record) = &mut self.0 {
            record.book(io, Some(now));
            record.memory.release_small(io);
        }
        // Dropped where it is, because to take it out would copy it.
        self.0 = None;
        give_slot(self);
    }

    fn prepared_fields(&self) -> Option<&PreparedFields> {
        Some(&self.0.as_ref()?.version().payload.headers)
    }

    fn made_at(&self) -> Option<Instant> {
        let record = self.0.as_ref()?;
        // Behind its run an answer is written at once; what fails may have waited.
        let is_answer = record.outcome.is_some_and(|outcome| outcome.code.is_none());
        is_answer.then_some(record.timing.phase_end)
    }
}

/// Taken out by the delivery alone, which takes the handle.
const FULL: &str = "a handle has its record from beginning to end";

impl Deref for RecordHandle {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        self.0.0.as_ref().expect(FULL)
    }
}

impl DerefMut for RecordHandle {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        self.0.0.as_mut().expect(FULL)
    }
}
