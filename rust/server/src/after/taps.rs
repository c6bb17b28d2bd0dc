//! What happens to a request after its answer: counters, latencies, sketches.
//!
//! A tap runs once the bytes are with the socket, in the same turn of the IO thread, while the tensors are still in its
//! cache; or when the client is gone, and then it is marked undelivered. A tap that is dropped before its answer existed
//! (the client left while the request was queued) counts as cancelled. Each connection holds at most as many taps as it has
//! requests in progress, so there is no queue that could grow.

mod booking;
pub mod fallback;
mod late;

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headgate_core::breaker::BreakerPermit;
use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::Version;
use headgate_engine::{Ran, Waiter};
use http::{HeaderName, HeaderValue};

use crate::after::access_log::{AccessLog, Protocol};
use crate::after::state;
use crate::request_context::RequestContext;
use crate::serving::shared::LiveEndpoint;
use crate::serving::version::VersionState;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;
use crate::transport::delivery::Delivery;

static X_FALLBACK: HeaderName = HeaderName::from_static("x-headgate-fallback");

/// A request that a version was chosen for, until everything about it is booked.
///
/// In memory of the thread's stock: it is handed from phase to phase as a pointer and allocates nothing.
pub struct Tap(Box<Slot>);

/// Memory for one request.
#[derive(Default)]
pub(crate) struct Slot(Option<Account>);

/// Requests whose memory a thread keeps at most.
const KEPT: usize = 256;

thread_local! {
    #[expect(clippy::vec_box, reason = "a tap is the box, and takes it along")]
    static SLOTS: RefCell<Vec<Box<Slot>>> = const { RefCell::new(Vec::new()) };
}

/// Memory for a request.
fn spare_slot() -> Box<Slot> {
    SLOTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes memory back.
fn keep(slot: Box<Slot>) {
    // Fails only while the thread's locals are being destroyed.
    let _ = SLOTS.try_with(|slots| {
        let mut slots = slots.borrow_mut();
        if slots.len() < KEPT {
            slots.push(slot);
        }
    });
}

/// What a [`Tap`] knows of its request.
pub struct Account {
    /// The tensors, once decoded; sketched after the answer. Dropped before the endpoint, which keeps their model alive.
    pub ran: Option<Ran>,
    endpoint: Arc<LiveEndpoint>,
    version: u8,
    waiter: Waiter,
    received: Instant,
    /// When the whole request is of no use any more, whichever version answers it.
    until: Instant,
    /// Whether the version's deadline is the document's, so that it is to blame for missing it; and whether the request's is.
    ours: bool,
    whole_ours: bool,
    /// Whether the run went on beyond the deadline.
    overran: bool,
    /// How it reached the version, where that has a breaker.
    pass: Option<BreakerPermit>,
    /// The version that was chosen; whether the champion was asked in its place, and how many of the fallbacks.
    first: u8,
    asked_champion: bool,
    tried: usize,
    /// What `x-headgate-fallback` says, when this version answers in another one's place.
    instead: Option<HeaderValue>,
    /// Whether another version answers in this one's place.
    passed_on: bool,
    answer: Option<Answer>,
    booked: bool,
    /// What the row sampler hashes.
    pub request_hash: u64,
    /// Whether the caller named the version.
    pub direct: bool,
    /// The memory of large strings in the request, and of a large answer.
    held: RequestMemory,
    /// What the access log says of it, where it was sampled.
    log: Option<Box<Logged>>,
    /// When the newest phase ended.
    phase_end: Instant,
    decode_ns: Option<u64>,
    queue_ns: Option<u64>,
    run_ns: Option<u64>,
    counts_run: bool,
}

/// What the access log needs beside the tap.
struct Logged {
    log: Arc<AccessLog>,
    protocol: Protocol,
    context: RequestContext,
}

/// The answer as far as a tap cares: its code, `None` for success.
#[derive(Clone, Copy)]
struct Answer(Option<Code>);

impl Tap {
    /// Begins to account for a request.
    pub fn begin(endpoint: Arc<LiveEndpoint>, version: u8, waiter: Waiter, received: Instant) -> Tap {
        let mut slot = spare_slot();
        slot.0 = Some(Account {
            endpoint,
            version,
            waiter,
            received,
            until: waiter.deadline,
            ours: true,
            whole_ours: true,
            overran: false,
            pass: None,
            first: version,
            asked_champion: false,
            tried: 0,
            instead: None,
            passed_on: false,
            answer: None,
            booked: false,
            ran: None,
            request_hash: 0,
            direct: false,
            held: RequestMemory::default(),
            log: None,
            phase_end: received,
            decode_ns: None,
            queue_ns: None,
            run_ns: None,
            counts_run: true,
        });
        let tap = Tap(slot);
        tap.shard().started.add(1);
        tap
    }

    /// The answer's bytes are with the socket.
    pub fn delivered(self, now: Instant) {
        self.0.delivered(now);
    }

    /// What is told when the answer is out.
    pub fn into_delivery(self) -> Box<dyn Delivery> {
        self.0
    }
}

impl Delivery for Slot {
    fn delivered(mut self: Box<Self>, now: Instant) {
        if let Some(mut account) = self.0.take() {
            io::try_with(|io| account.book(io, Some(now)));
        }
        keep(self);
    }
}

/// Taken out by the delivery alone, which takes the tap.
const WHOLE: &str = "a tap has its account from beginning to end";

impl Deref for Tap {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.0.0.as_ref().expect(WHOLE)
    }
}

impl DerefMut for Tap {
    fn deref_mut(&mut self) -> &mut Account {
        self.0.0.as_mut().expect(WHOLE)
    }
}

impl Account {
    /// Has the access log write it down, if this is one that it takes.
    pub fn sample(&mut self, io: &Io, protocol: Protocol, context: &RequestContext) {
        self.log =
            state::sampled_log(io).map(|log| Box::new(Logged { log, protocol, context: context.clone() }));
    }

    /// The phases that were reached and the time since the first byte, in nanoseconds.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let total = Some(nanos(self.received, Instant::now()));
        let times =
            [("decode", self.decode_ns), ("queue", self.queue_ns), ("run", self.run_ns), ("total", total)];
        times.into_iter().filter_map(|(name, ns)| Some((name, ns?)))
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &LiveEndpoint {
        &self.endpoint
    }

    /// The version.
    pub fn version(&self) -> &Version<VersionState> {
        &self.endpoint.versions[self.version as usize]
    }

    /// The endpoint and the version's place in it, for work that goes on elsewhere.
    pub fn chosen(&self) -> (Arc<LiveEndpoint>, usize) {
        (self.endpoint.clone(), self.version.into())
    }

    /// Adds the headers that say who answered, and in whose place.
    pub fn add_headers(&self, fields: &mut impl Extend<(HeaderName, HeaderValue)>) {
        fields.extend(self.version().payload.headers());
        if let Some(instead) = &self.instead {
            fields.extend([(X_FALLBACK.clone(), instead.clone())]);
        }
    }

    /// Who waits for the run.
    pub fn waiter(&self) -> Waiter {
        self.waiter
    }

    /// When the time-out is over: the endpoint's, or the request's own where that is shorter; a version that has fallbacks may
    /// have less.
    pub fn deadline(&self) -> Instant {
        self.waiter.deadline
    }

    /// Whether the version takes requests.
    ///
    /// # Errors
    /// `model_not_ready` while its breaker is open.
    pub fn admit(&mut self, io: &Io) -> Result<()> {
        let Some(breaker) = &self.version().payload.breaker else { return Ok(()) };
        let pass = breaker.permit(io.shared.now_ns()).map_err(|wait| {
            let name = &self.version().name;
            let words = format!(
                "version {name} has failed too often and is left alone for {wait:.1?} (limits.breaker)"
            );
            Error::new(Code::ModelNotReady, words).after(wait)
        })?;
        self.pass = Some(pass);
        Ok(())
    }

    /// The request's own time-out, and when its transport and its client stop waiting.
    pub fn limit(&mut self, timeout: Option<Duration>, deadlines: [Option<Instant>; 2]) {
        // 0 is what clients send that fill every field: no time-out of its own, as Triton has it.
        let own = timeout.filter(|timeout| !timeout.is_zero());
        let own = own.and_then(|timeout| self.received.checked_add(timeout));
        let client = own.into_iter().chain(deadlines.into_iter().flatten()).min();
        let ours = self.received + self.endpoint.timeout;
        // From now on: how long the request was on its way says nothing about the version.
        let after = self.endpoint.fallback.after.filter(|_| !self.direct).map(|after| Instant::now() + after);
        let version = after.map_or(ours, |after| after.min(ours));
        self.until = client.map_or(ours, |client| client.min(ours));
        self.waiter.deadline = version.min(self.until);
        self.ours = client.is_none_or(|client| client >= version);
        self.whole_ours = client.is_none_or(|client| client >= ours);
    }

    /// The run went on when the deadline passed.
    pub fn overran(&mut self) {
        self.overran = true;
    }

    /// Too little time is left for a run.
    pub fn hopeless(&self) {
        self.shard().hopeless.add(1);
    }

    /// The inputs are typed values.
    pub fn decoded(&mut self, begun: Instant, now: Instant) {
        self.decode_ns = Some(nanos(begun, now));
        self.phase_end = now;
    }

    /// Whether the inputs were typed values, so that a failure is one of the run or of writing its answer.
    pub fn is_decoded(&self) -> bool {
        self.decode_ns.is_some()
    }

    /// When the whole request is of no use any more.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// When the inputs were typed values.
    pub fn decoded_at(&self) -> Instant {
        self.phase_end
    }

    /// The run, on this thread, is over.
    pub fn ran_inline(&mut self, now: Instant) {
        let run_ns = nanos(self.phase_end, now);
        self.version().payload.model.ran(run_ns);
        self.run_ns = Some(run_ns);
        self.phase_end = now;
    }

    /// The run, on a pool thread, is over.
    ///
    /// `counts` is false where another request of the same batch stands for the run.
    pub fn ran_pooled(&mut self, queue_ns: u64, run_ns: u64, counts: bool, now: Instant) {
        self.counts_run = counts;
        self.queue_ns = Some(queue_ns);
        self.run_ns = (run_ns > 0).then_some(run_ns);
        if let Some(run_ns) = self.run_ns {
            self.version().payload.model.ran(run_ns);
        }
        self.phase_end = now;
    }

    /// What counts the request's memory beside its body's, until its answer is out.
    pub fn counted(&mut self) -> &mut RequestMemory {
        &mut self.held
    }

    /// The answer exists: `None` is success.
    pub fn answered(&mut self, io: &Io, code: Option<Code>) {
        self.answer = Some(Answer(code));
        // At once: whether the client reads its answer says nothing about the version.
        self.report(io, code);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.booked {
            // Requests end on IO threads; without one the gateway is gone.
            io::try_with(|io| self.abandoned(io));
        }
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
