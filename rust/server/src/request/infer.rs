//! The phases of an inference request: one list in one order, whatever wire the request came by.
//!
//! ```text
//! stopping -> endpoint, rate -> body -> envelope -> route -> admit the version -> decode -> run -> write     (-> after)
//! ```
//! [`infer`] is that list. An [`InferWire`] supplies what differs: body, envelope and the frame of the response. A path names the
//! endpoint before the body is read, so that a limited caller uploads nothing. A gRPC message names it itself, so that its body is
//! read first. Until a version is chosen a failure belongs to no version; from then on it is booked on that version. Nothing of hyper
//! is known here.
//!
//! Next: `attempt`, then `after::record`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::route::{RouteDecision, RouteReason, choose_named_version, choose_version};
use headgate_core::spec::NonFinite;
use headgate_engine::Instant;
use headgate_protocol::envelope::Envelope;

use crate::after::copies::{self, DrawnCopies, DrawnRequest};
use crate::after::record::routed_version::RoutedVersion;
use crate::after::record::{LogSample, RecordHandle};
use crate::feedback::endpoint::SlotDecision;
use crate::request::attempt::Attempt;
use crate::request::deadline::{Deadlines, earlier};
use crate::request::fallback::FallbackState;
use crate::request::inference::{InferCall, InferResponse, ParsedRequest, Target};
use crate::request::routing_fields::RoutingFields;
use crate::request::{attempts, deadline, tensors};
use crate::serving::shared::LiveEndpoint;
use crate::thread::catch_panic::catch_panic;
use crate::thread::io::Io;
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

    /// Takes the body if it was read with the head and is not encoded; its share of the memory for requests in progress.
    fn take_body(&mut self, io: &Io) -> Option<RequestMemory> {
        let _ = io;
        None
    }

    /// Reads the body, decoded as its headers say, until `until` at most; its share of the memory for requests in progress.
    ///
    /// # Errors
    /// Those of the wire.
    fn read_body(&mut self, until: Option<Instant>) -> impl Future<Output = Result<RequestMemory>>;

    /// The body that was read.
    fn body(&self) -> &Bytes;

    /// Reads the envelope of the body into an empty one, if that takes little time. False if it takes long, and nothing was read then.
    ///
    /// # Errors
    /// `invalid_argument`, `unsupported`.
    fn read_short_envelope<'b>(&'b self, into: &mut Envelope<'b>) -> Result<bool> {
        let _ = into;
        Ok(false)
    }

    /// Reads the envelope of the body. What that takes is counted with the body.
    ///
    /// # Errors
    /// `invalid_argument`, `unsupported`; `deadline_exceeded`.
    fn read_envelope<'b>(
        &'b self,
        until: Option<Instant>,
        memory: &mut RequestMemory,
    ) -> impl Future<Output = Result<Envelope<'b>>>;
}

/// Answers one inference request.
///
/// # Errors
/// What refuses a request before a version is chosen, counted and logged.
pub async fn infer<W: InferWire>(io: &Io, call: &InferCall<'_>, wire: &mut W) -> Result<InferResponse> {
    let answer = catch_panic(pin!(run_phases(io, call, wire))).await;
    answer.inspect_err(|error| {
        let endpoint = wire.target().map_or("", |target| target.endpoint);
        call.book_refusal(io, endpoint, error);
    })
}

/// The list of phases.
async fn run_phases<W: InferWire>(io: &Io, call: &InferCall<'_>, wire: &mut W) -> Result<InferResponse> {
    // Stopping; endpoint and rate, if the path names the endpoint.
    refuse_if_stopping(io)?;
    let by_path = if W::NAMED_BY_PATH { Some(admit_caller(io, call, wire.target()?)?) } else { None };
    // A header that cannot be read is refused behind the envelope.
    let by_header = deadline::of(call.context.timeout.as_ref(), call.received);
    let waits_until = by_header.as_ref().ok().copied().flatten();
    // Body; endpoint and rate, if the body names the endpoint.
    let mut memory = match wire.take_body(io) {
        Some(memory) => memory,
        None => wire.read_body(known_deadline(call, waits_until, by_path.as_deref())).await?,
    };
    let endpoint = match by_path {
        Some(endpoint) => endpoint,
        None => admit_caller(io, call, wire.target()?)?,
    };
    // Envelope.
    let mut envelope = Envelope::default();
    if !wire.read_short_envelope(&mut envelope)? {
        let document = W::NAMED_BY_PATH.then_some(&*endpoint);
        envelope = wire.read_envelope(known_deadline(call, waits_until, document), &mut memory).await?;
    }
    if endpoint.non_finite != NonFinite::Error {
        envelope.set_non_finite(endpoint.non_finite);
    }
    // Route.
    let client = client_deadline(call, by_header?, &envelope);
    let target = wire.target()?;
    let fields = RoutingFields { target, headers: call.headers, parameters: &envelope.parameters };
    let mut attempt = route(io, call, &fields, RequestShare { endpoint, client, memory })?;
    let mut out = io.replies.take();
    // Admit the version, decode, run, write.
    let request = ParsedRequest { envelope: &envelope, body: wire.body(), wire_format: call.wire_format };
    let mut result = attempt.serve(io, &request, &mut out).await;
    if let Err(error) = result {
        // In a box: what seldom happens must not make every request's future larger.
        (attempt, result) =
            Box::pin(attempts::serve_by_fallback(io, attempt, error, &request, &mut out)).await;
    }
    tensors::with_scratch(|scratch| scratch.envelope.recycle(&mut envelope));
    let Attempt { mut record, deadlines, .. } = attempt;
    record.answered(io, result.as_ref().err().map(|error| error.code));
    // After: the record is booked when the reply is out.
    Ok(InferResponse { result, body: out, record, deadline: deadlines.request })
}

/// Refuses a request that comes when what is in flight is about to be cut off. Its client may try another gateway; begun, it would
/// be lost.
fn refuse_if_stopping(io: &Io) -> Result<()> {
    match io.last_start_at() {
        Some(at) if at <= Instant::now() => Err(stopping_error()),
        _ => Ok(()),
    }
}

/// The refusal of what a gateway that stops does not answer any more.
pub fn stopping_error() -> Error {
    Error::new(Code::Draining, "the gateway is stopping; send what was not answered to another one")
}

/// Finds the endpoint, which the request keeps as it is now, and takes a token of its rate.
///
/// # Errors
/// `model_not_found`; `rate_limited` for a caller that comes too often.
fn admit_caller(io: &Io, call: &InferCall<'_>, target: Target<'_>) -> Result<Arc<LiveEndpoint>> {
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

/// When a request is of no use any more, as far as its headers and the endpoint say.
fn known_deadline(
    call: &InferCall<'_>,
    by_header: Option<Instant>,
    endpoint: Option<&LiveEndpoint>,
) -> Option<Instant> {
    let document = endpoint.map(|endpoint| call.received + endpoint.timeout);
    earlier(earlier(call.deadline, by_header), document)
}

/// When the client stops waiting, by all that it says.
fn client_deadline(
    call: &InferCall<'_>,
    by_header: Option<Instant>,
    envelope: &Envelope<'_>,
) -> Option<Instant> {
    // Clients that fill every field send 0: no time-out of its own, as Triton has it.
    let own = envelope.parameters.timeout_us.filter(|&timeout| timeout > 0);
    let own = own.and_then(|timeout| call.received.checked_add(Duration::from_micros(timeout)));
    earlier(earlier(call.deadline, by_header), own)
}

/// What a request has when its version is picked.
struct RequestShare {
    endpoint: Arc<LiveEndpoint>,
    /// When its client stops waiting.
    client: Option<Instant>,
    /// Its share of the memory for requests in progress.
    memory: RequestMemory,
}

/// Picks the version that answers, and begins to account for the request.
///
/// # Errors
/// `version_not_found`; `model_not_ready` for a version that does not load.
fn route(io: &Io, call: &InferCall<'_>, fields: &RoutingFields<'_>, share: RequestShare) -> Result<Attempt> {
    let RequestShare { endpoint, client, memory } = share;
    let decision = match fields.target.version {
        Some(version) => choose_named_version(&endpoint, version)?,
        None => choose_version(&endpoint, fields, || io.draw()),
    };
    let RouteDecision { version, reason, unit, slot } = decision;
    // The row sampler hashes this number with the place of a row, and each draw with its own salt, so that one number serves both.
    let number = io.draw();
    let AppliedPolicies { class, after, copies } = if endpoint.has_policies {
        AppliedPolicies::of(&endpoint, call, fields, decision, number)
    } else {
        AppliedPolicies::default()
    };
    let deadlines = Deadlines::new(call.received, endpoint.timeout, after, client);
    let routed = RoutedVersion { endpoint, index: version, thread: io.thread, reason };
    let mut record = RecordHandle::begin(routed, call.received, number, memory);
    record.copies = copies;
    if record.version().payload.is_evaluated {
        record.begin_trial(io, unit);
        record.decided_by = slot.map(|slot| SlotDecision { slot, unit });
    }
    record.log = LogSample::draw(io, call.protocol, call.context);
    Ok(Attempt { record, deadlines, fallbacks: FallbackState::new(version), class })
}

/// What the policies of an endpoint say about a request.
#[derive(Default)]
struct AppliedPolicies {
    /// The class of the caller; 0 is run first.
    class: u8,
    /// How long the version has before others are asked.
    after: Option<Duration>,
    /// The copies that were drawn of the request.
    copies: Option<DrawnCopies>,
}

impl AppliedPolicies {
    fn of(
        endpoint: &LiveEndpoint,
        call: &InferCall<'_>,
        fields: &RoutingFields<'_>,
        decision: RouteDecision,
        number: u64,
    ) -> AppliedPolicies {
        let priority = endpoint.priority.as_ref();
        let class = priority.map_or(0, |priority| priority.class(call.headers.get(&priority.by)));
        let after = endpoint.fallback.after.filter(|_| decision.reason != RouteReason::Direct);
        let request_id = call.context.request_id.as_ref();
        let drawn = DrawnRequest { fields, number, request_id, received: call.received };
        AppliedPolicies { class, after, copies: copies::draw(endpoint, decision, &drawn) }
    }
}
