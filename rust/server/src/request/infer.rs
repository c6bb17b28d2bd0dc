//! The phases of an inference request: one list in one order, whatever wire the request came by.
//!
//! ```text
//! stopping -> endpoint, rate -> body -> envelope -> route -> admit the version -> decode -> run -> reply     (-> after)
//! ```
//! [`infer`] is that list. An [`InferWire`] supplies what differs: body, envelope and the frame of the response. A path names the
//! endpoint before the body is read, so that a caller who comes too often uploads nothing; a gRPC message names it itself, so
//! that its body stands in front. Until a version is chosen a failure belongs to no version; from then on it is booked on that
//! version. Nothing of hyper is known here.
//!
//! Next: `tensors`, `outputs`, then `after::taps`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::route::{RouteDecision, RouteReason, choose_named_version, choose_version};
use headgate_core::spec::NonFinite;
use headgate_engine::runtime::cancel::Scope;
use headgate_engine::{Lease, Place, Ran, Seat, Waiter, Warm};
use headgate_protocol::envelope::Envelope;
use headgate_protocol::reply::ReplyHead;

use crate::after::taps::Tap;
use crate::request::inference::{Answer, Dialect, InferCall, Sent, Target};
use crate::request::outputs::{self, Manner, Outputs};
use crate::request::tensors::{self, Buffers};
use crate::request::{attempts, deadline, large, large_input};
use crate::serving::shared::LiveEndpoint;
use crate::thread::catch_panic::catch_panic;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;

/// What a wire supplies to the phases of a request.
pub trait InferWire {
    /// Whether the endpoint is named before the body is read.
    const NAMED_BY_PATH: bool;

    /// The endpoint and the version that the request names; if the body names them, those of the body that was read.
    ///
    /// # Errors
    /// `invalid_argument` for a body in which they cannot be found.
    fn target(&self) -> Result<Target<'_>>;

    /// Reads the body, decoded as its headers say, until `until` at most; its share of the memory for requests in progress.
    ///
    /// # Errors
    /// Those of the wire.
    fn read_body(&mut self, until: Option<Instant>) -> impl Future<Output = Result<RequestMemory>>;

    /// The body that was read.
    fn body(&self) -> &Bytes;

    /// Reads the envelope of the body. What that takes is counted with the body.
    ///
    /// # Errors
    /// `invalid_argument`, `unsupported`; `deadline_exceeded`.
    fn read_envelope<'b>(
        &'b self,
        until: Option<Instant>,
        counted: &mut RequestMemory,
    ) -> impl Future<Output = Result<Envelope<'b>>>;
}

/// Answers one inference request.
///
/// # Errors
/// What refuses a request before a version is chosen, counted and logged.
pub async fn infer<W: InferWire>(call: &InferCall<'_>, wire: &mut W) -> Result<Answer> {
    let answer = catch_panic(pin!(phases(call, wire))).await;
    answer.inspect_err(|error| {
        let endpoint = wire.target().map_or("", |target| target.endpoint);
        io::with(|io| call.book_refusal(io, endpoint, error));
    })
}

/// The list.
async fn phases<W: InferWire>(call: &InferCall<'_>, wire: &mut W) -> Result<Answer> {
    let by_path = io::with(|io| {
        refuse_if_stopping(io)?;
        W::NAMED_BY_PATH.then(|| enter(io, call, wire.target()?)).transpose()
    })?;
    // A time that cannot be read is refused with the envelope.
    let asked = deadline::of(call.context.timeout.as_ref(), call.received);
    let until = until(call, asked.as_ref().ok().copied().flatten(), by_path.as_deref());
    let mut counted = wire.read_body(until).await?;
    let endpoint = match by_path {
        Some(endpoint) => endpoint,
        None => io::with(|io| enter(io, call, wire.target()?))?,
    };
    let mut envelope = wire.read_envelope(until, &mut counted).await?;
    let asked = asked?;
    if endpoint.non_finite != NonFinite::Error {
        envelope.allow(endpoint.non_finite);
    }
    let mut tap = io::with(|io| route(io, call, wire.target()?, endpoint))?;
    tap.counted().merge(counted);
    tap.limit(envelope.parameters.timeout_us.map(Duration::from_micros), [call.deadline, asked]);
    let (body, mut reply) = (wire.body(), io::with(|io| io.replies.take()));
    let mut result = serve(&envelope, body, call.dialect, &mut tap, &mut reply).await;
    if let Err(error) = result {
        let again =
            async |tap: &mut Tap, out: &mut Vec<u8>| serve(&envelope, body, call.dialect, tap, out).await;
        // In a box: what seldom happens must not make every request's future larger.
        (tap, result) = Box::pin(attempts::go_on((tap, error), body.len(), &mut reply, again)).await;
    }
    tensors::with_scratch(|scratch| scratch.envelope.recycle(envelope));
    io::with(|io| tap.answered(io, result.as_ref().err().map(|error| error.code)));
    Ok(Answer { result, body: reply, tap })
}

/// Refuses a request that comes when what is in flight is about to be cut off. Its client may try another gateway; begun, it would
/// be lost.
fn refuse_if_stopping(io: &Io) -> Result<()> {
    match io.last_words() {
        Some(at) if at <= Instant::now() => Err(stopping()),
        _ => Ok(()),
    }
}

/// The refusal of what a gateway that stops does not answer any more.
pub fn stopping() -> Error {
    Error::new(Code::Draining, "the gateway is stopping; send what was not answered to another one")
}

/// The endpoint as it is now, which the request keeps to its end, for a caller that may come.
///
/// # Errors
/// `model_not_found`; `rate_limited` for one that comes too often.
fn enter(io: &Io, call: &InferCall<'_>, target: Target<'_>) -> Result<Arc<LiveEndpoint>> {
    let endpoint = io.endpoint(target.endpoint)?;
    let Some(quota) = &endpoint.quota else { return Ok(endpoint) };
    let caller = quota.by.as_deref().and_then(|name| call.headers.get(name)).unwrap_or_default();
    quota.limiter.take(caller, io.shared.now_ns()).map_err(|wait| {
        let whose = if quota.by.is_some() { "this caller comes" } else { "requests come" };
        let words = format!("{whose} more often than endpoint {:?} allows (limits.rate)", endpoint.name);
        Error::new(Code::RateLimited, words).after(wait)
    })?;
    Ok(endpoint)
}

/// When a request is of no use any more, as far as that is known before its envelope.
fn until(call: &InferCall<'_>, asked: Option<Instant>, endpoint: Option<&LiveEndpoint>) -> Option<Instant> {
    let ours = endpoint.map(|endpoint| call.received + endpoint.timeout);
    [call.deadline, asked, ours].into_iter().flatten().min()
}

/// Picks the version that answers, and begins to account for the request.
///
/// # Errors
/// `version_not_found`; `model_not_ready` for a version that does not load.
fn route(io: &Io, call: &InferCall<'_>, target: Target<'_>, endpoint: Arc<LiveEndpoint>) -> Result<Tap> {
    let RouteDecision { version, reason, .. } = match target.version {
        Some(version) => choose_named_version(&endpoint, version)?,
        None => {
            let header = endpoint.sticky.as_deref().and_then(|name| call.headers.get(name));
            choose_version(&endpoint, header.filter(|key| !key.is_empty()), || io.draw())
        }
    };
    let class =
        endpoint.priority.as_ref().map_or(0, |priority| priority.class(call.headers.get(&priority.by)));
    let waiter = Waiter { thread: io.thread, deadline: call.received + endpoint.timeout, class };
    let mut tap = Tap::begin(endpoint, version, waiter, call.received);
    tap.direct = reason == RouteReason::Direct;
    tap.request_hash = io.draw();
    tap.sample(io, call.protocol, call.context);
    Ok(tap)
}

/// The phases that a version answers for.
async fn serve(
    envelope: &Envelope<'_>,
    body: &Bytes,
    dialect: Dialect,
    tap: &mut Tap,
    out: &mut Vec<u8>,
) -> Result<Sent> {
    let mut begun = io::with(|io| {
        tap.admit(io)?;
        in_time(io, tap)
    })?;
    let warm = match tap.version().payload.model.hold() {
        Some(warm) => warm,
        None => {
            let warm = Box::pin(fetch(tap)).await?;
            begun = io::with(|io| in_time(io, tap))?;
            warm
        }
    };
    // Looked at again where it matters; a refusal is not to cost what decoding costs.
    warm.welcomes(tap.waiter().class)?;
    envelope.check_outputs(&warm.signature().outputs)?;
    let buffers = if body.len() > large_input::INLINE && large_input::takes_long(envelope) {
        let waiter = tap.waiter();
        Box::pin(large_input::decode(envelope, body, (warm, waiter), tap)).await?
    } else {
        io::with(|io| decode(io, envelope, body, warm, tap))?
    };
    tap.decoded(begun, Instant::now());
    let ran = run(buffers, tap).await?;
    let replied = reply(envelope, dialect, tap, &ran, out);
    if let Ok(None) = replied {
        let (ran, sent) = Box::pin(large::write(envelope, dialect, tap, ran, out)).await;
        tap.ran = ran;
        return sent;
    }
    tap.ran = Some(ran);
    let (sent, output_bytes) = replied?.expect("a large answer was written elsewhere");
    io::with(|io| tap.counted().add_bytes(io, out.len() + output_bytes))?;
    Ok(sent)
}

/// The present time, unless too little is left for a run: what is refused here has cost no work.
fn in_time(io: &Io, tap: &Tap) -> Result<Instant> {
    let now = Instant::now();
    let left = tap.deadline().saturating_duration_since(now);
    if left.is_zero() {
        tap.hopeless();
        return Err(Error::new(Code::DeadlineExceeded, "the deadline passed before the run began"));
    }
    let now_ns = || io.shared.ns_at(now);
    let Some(run) = tap.version().payload.model.takes_longer_than(left, now_ns) else { return Ok(now) };
    tap.hopeless();
    Err(Error::new(
        Code::DeadlineExceeded,
        format!("a run takes about {run:.1?}, and {left:.1?} are left before the deadline"),
    ))
}

/// Waits for a version that is out of memory.
async fn fetch(tap: &Tap) -> Result<Warm> {
    let fetcher = io::with(|io| io.shared.fetcher.clone());
    fetcher.fetch(&tap.version().payload.model, tap.deadline()).await
}

fn decode(io: &Io, envelope: &Envelope<'_>, body: &Bytes, warm: Warm, tap: &mut Tap) -> Result<Buffers> {
    let waiter = tap.waiter();
    let counted = tap.counted();
    let hold = &mut |bytes| counted.add_bytes(io, bytes);
    tensors::with_scratch(|scratch| tensors::decode(envelope, body, (warm, waiter), scratch, hold))
}

async fn run(buffers: Buffers, tap: &mut Tap) -> Result<Ran> {
    if tap.decoded_at() >= tap.deadline() {
        return Err(Error::new(Code::DeadlineExceeded, "the deadline passed before the run began"));
    }
    match buffers {
        Buffers::Own(lease) => run_alone(lease, tap).await.map(Ran::Alone),
        Buffers::Shared(seat) => run_together(seat, tap).await,
    }
}

async fn run_together(mut seat: Seat, tap: &mut Tap) -> Result<Ran> {
    io::with(|io| io.shared.pool.ready(&mut seat));
    // Late or left, the request gives its seat up, and the batch goes on without it.
    let batch = seat.batch().clone();
    let Ok(done) = tokio::time::timeout_at(tap.deadline().into(), seat.done()).await else {
        if batch.has_begun() {
            tap.overran();
        }
        return Err(late());
    };
    tap.ran_pooled(done.queue_ns, done.run_ns, done.counts, Instant::now());
    done.result.map_err(|error| ended(error, tap))
}

async fn run_alone(mut lease: Lease, tap: &mut Tap) -> Result<Lease> {
    match lease.model().place() {
        Place::Inline => {
            let result = io::with(|io| run_inline(io, &mut lease, tap));
            if result.as_ref().is_err_and(|error| error.code == Code::Cancelled) {
                // It held the thread up. In the pool it may take the time that the request has.
                return run_in_pool(lease, tap).await;
            }
            tap.ran_inline(Instant::now());
            result.map(|()| lease)
        }
        Place::Pool | Place::Batch => run_in_pool(lease, tap).await,
    }
}

/// Runs on this thread, which the watchdog looks after meanwhile.
fn run_inline(io: &Io, lease: &mut Lease, tap: &Tap) -> Result<()> {
    let _heartbeat = io.shared.heartbeats[io.thread].begin(lease.model(), io.shared.ns_at(tap.decoded_at()));
    let _scope = Scope::begin();
    lease.run()
}

async fn run_in_pool(mut lease: Lease, tap: &mut Tap) -> Result<Lease> {
    let deadline = tap.deadline();
    // A run may outlive its request when the client leaves or the deadline passes, and so does its memory.
    lease.attach(tap.counted().take_large_boxed());
    let run = io::with(|io| io.shared.pool.submit(lease, tap.waiter()))?;
    let mut run = tap.awaits(run);
    let Ok(outcome) = tokio::time::timeout_at(deadline.into(), &mut run).await else {
        if run.has_begun() {
            tap.overran();
        }
        return Err(late());
    };
    let outcome = outcome?;
    tap.ran_pooled(outcome.queue_ns, outcome.run_ns, true, Instant::now());
    outcome.result.map(|()| outcome.lease).map_err(|error| ended(error, tap))
}

/// Why a run in the pool ended without an answer. The watchdog may end one at its deadline a moment before the request's own clock does.
fn ended(error: Error, tap: &mut Tap) -> Error {
    if error.code != Code::Cancelled {
        return error;
    }
    tap.overran();
    late()
}

/// The refusal of a request that waits no longer.
fn late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the run ended")
}

/// Writes the answer; how it is sent, and the size of the outputs that it was written from. `None` for a large one, whose outputs are
/// selected and which is to be written elsewhere.
fn reply(
    envelope: &Envelope<'_>,
    dialect: Dialect,
    tap: &Tap,
    ran: &Ran,
    out: &mut Vec<u8>,
) -> Result<Option<(Sent, usize)>> {
    tensors::with_scratch(|scratch| {
        envelope.select(&ran.model().signature().outputs, &mut scratch.selection)?;
        let head = ReplyHead {
            id: envelope.id.as_deref(),
            model_name: &tap.endpoint().name,
            model_version: &tap.version().name,
        };
        let (form, marks_final) = (envelope.form, envelope.parameters.marks_final);
        let manner = Manner { dialect, form, marks_final, rows: ran.rows() };
        let lists = &mut scratch.outputs;
        let outputs = Outputs::of(&scratch.selection, ran, tap.endpoint(), dialect, lists)?;
        let bytes = outputs.bytes();
        if large::is_large(&outputs, bytes, head.id) {
            lists.keep(outputs);
            return Ok(None);
        }
        let tensors = outputs.tensors(lists)?;
        let sent = outputs::write(&manner, &head, &tensors, out)?;
        lists.keep_tensors(tensors);
        lists.keep(outputs);
        Ok(Some((sent, bytes)))
    })
}
