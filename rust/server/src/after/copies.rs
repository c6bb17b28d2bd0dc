//! Copies of requests: which of them shadows and the capture get, and the hand-over of the tensors after the response.
//!
//! A request is drawn when its version is chosen, because its headers are there then. A request that is not drawn costs the draws, and a
//! request to an endpoint without shadows and capture one comparison. The tensors are handed over once the response is out: they get one
//! owner that all share, and nothing is copied but small rows of a batch, whose slab the next batch needs, and small inputs of a large body.
//!
//! Not here: the queues and what becomes of copies (`shadow`, `capture`).

use std::cell::OnceCell;
use std::mem::take;
use std::sync::Arc;

use headgate_core::error::{Code, Result};
use headgate_core::route::{RouteDecision, RouteReason, sticky_key};
use headgate_core::rules::{FieldName, FieldValue, RequestFields};
use headgate_core::shadow::{MAX_SHADOWS, Shadow};
use headgate_core::trial::outcome::RunStage;
use headgate_engine::Instant;
use headgate_engine::RunResult;
use http::HeaderValue;

use crate::after::capturing::{CapturedEnd, DrawnCapture};
use crate::copied_run::{Answer, CopiedRun};
use crate::serving::shared::LiveEndpoint;
use crate::shadow::live_shadow::LiveShadow;
use crate::shadow::tally::slices::SliceValues;

/// Rows of a batch and inputs in a body with at most this many bytes are copied. Larger ones keep the slab of their batch or the body, which
/// then counts whole.
const MAX_COPIED: usize = 256 << 10;
/// The most bytes of a value that is counted apart.
const MAX_VALUE: usize = 64;

/// What was drawn for a request.
pub struct DrawnCopies {
    /// The shadows that get it: a bit for each of the endpoint's.
    shadows: u8,
    /// `None` if there is nothing else to say of it, so that nothing is allocated.
    details: Option<Box<DrawnDetails>>,
}

const _: () = assert!(MAX_SHADOWS <= u8::BITS as usize, "each shadow has a bit");

/// What most requests that are drawn do not have.
#[derive(Default)]
struct DrawnDetails {
    /// What the capture says of it, if it is captured.
    capture: Option<DrawnCapture>,
    /// `x-request-id` of the request.
    request_id: Option<HeaderValue>,
    /// The values of the fields that a shadow counts apart, with the shadow's index, if it has such fields.
    slices: Vec<(u8, SliceValues)>,
}

/// What is known of a request when its version is chosen.
pub struct DrawnRequest<'a, F> {
    /// Its headers and parameters.
    pub fields: &'a F,
    /// The number of the request, which decides the draws.
    pub number: u64,
    /// `x-request-id`.
    pub request_id: Option<&'a HeaderValue>,
    /// When its first byte came.
    pub received: Instant,
}

/// Draws the copies of a request. Mostly there are none.
#[inline]
pub fn draw<F: RequestFields>(
    endpoint: &LiveEndpoint,
    decision: RouteDecision,
    request: &DrawnRequest<'_, F>,
) -> Option<DrawnCopies> {
    if endpoint.shadows.is_empty() && endpoint.capture.is_none() {
        return None;
    }
    // Most draws ask for no key.
    let known = OnceCell::new();
    let key = || *known.get_or_init(|| sticky_key(endpoint, request.fields));
    let shadows = if is_compared(endpoint, decision) {
        let drawn = |shadow: &Shadow| shadow.sample.chooses(request.number, key);
        let bits = endpoint.shadows.iter().enumerate();
        bits.fold(0, |bits, (index, shadow)| bits | (u8::from(drawn(shadow)) << index))
    } else {
        0
    };
    let capture = endpoint.capture.as_ref().filter(|capture| capture.sample.chooses(request.number, key));
    if shadows == 0 && capture.is_none() {
        return None;
    }
    let DrawnRequest { number, received, .. } = *request;
    let capture = capture.map(|capture| DrawnCapture::new(capture, decision, number, key(), received));
    Some(drawn_copies(endpoint, request, shadows, capture))
}

#[cold]
fn drawn_copies<F: RequestFields>(
    endpoint: &LiveEndpoint,
    request: &DrawnRequest<'_, F>,
    shadows: u8,
    capture: Option<DrawnCapture>,
) -> DrawnCopies {
    let mut slices = Vec::new();
    for index in bits_of(shadows) {
        let fields = &endpoint.shadows[usize::from(index)].spec.slices;
        if !fields.is_empty() {
            slices.push((index, fields.iter().map(|field| value_of(request.fields, field)).collect()));
        }
    }
    let has_details = capture.is_some() || request.request_id.is_some() || !slices.is_empty();
    let request_id = request.request_id.cloned();
    DrawnCopies {
        shadows,
        details: has_details.then(|| Box::new(DrawnDetails { capture, request_id, slices })),
    }
}

/// The places of the bits that are set.
fn bits_of(mut bits: u8) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as u8;
        bits &= bits.checked_sub(1)?;
        Some(place)
    })
}

/// Whether an answer takes part in comparisons: slots sent the request to the champion. Requests that a rule or the caller sent there are no
/// random part of the traffic.
fn is_compared(endpoint: &LiveEndpoint, decision: RouteDecision) -> bool {
    matches!(decision.reason, RouteReason::Sticky | RouteReason::Drawn)
        && decision.version == endpoint.champion
}

/// The value of a field, cut to a bound; `None` if the request does not have it.
fn value_of(fields: &impl RequestFields, field: &FieldName) -> Option<Box<str>> {
    let cut = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(MAX_VALUE)]).into();
    match field {
        FieldName::Header(name) => fields.header(name).map(|value| cut(value.trim_ascii())),
        FieldName::Parameter(name) => fields.parameter(name).map(|value| match value {
            FieldValue::Text(text) => cut(text.as_bytes()),
            FieldValue::Integer(value) => value.to_string().into(),
            FieldValue::Number(value) => value.to_string().into(),
            FieldValue::Bool(value) => value.to_string().into(),
        }),
    }
}

/// What a version made of a request that was drawn.
pub struct FinishedRun {
    /// The tensors; `None` if they are lost.
    pub run: Option<RunResult>,
    /// Whether they have outputs.
    pub answer: Answer,
    /// How the request ended.
    pub end: CapturedEnd,
}

impl FinishedRun {
    /// The run of a request, which came as far as `stage`, and its `end`. `failed` says that the run failed. `None` if it says nothing about
    /// the version: the request was at fault, was never run, or its client left.
    pub fn new(
        run: Option<RunResult>,
        failed: bool,
        stage: RunStage,
        end: CapturedEnd,
    ) -> Option<FinishedRun> {
        let answer = match end.code {
            _ if run.is_some() && !failed => Answer::Outputs,
            // It was shed, whatever the code.
            _ if stage == RunStage::NotBegun => return None,
            Some(code @ (Code::BackendFailed | Code::Internal | Code::DeadlineExceeded)) => {
                Answer::Failed(code)
            }
            _ => return None,
        };
        Some(FinishedRun { run, answer, end })
    }
}

/// Detaches the tensors of a run from what requests share.
///
/// # Errors
/// `internal` if they cannot be read. Then they are lost.
pub fn detach(run: &mut RunResult) -> Result<()> {
    run.detach(MAX_COPIED)
}

/// Hands a request over to those that drew it, after its response, which was out at `at`.
pub fn hand_over(endpoint: &LiveEndpoint, drawn: DrawnCopies, finished: FinishedRun, at: Instant) {
    let FinishedRun { run, answer, end } = finished;
    let DrawnDetails { capture, request_id, mut slices } =
        drawn.details.map(|details| *details).unwrap_or_default();
    let shadows = || {
        let live = |index| Some((index, live_shadow(endpoint, index)?));
        bits_of(drawn.shadows).filter_map(live)
    };
    let Some(run) = run.and_then(|mut run| detach(&mut run).is_ok().then_some(run)) else {
        if let Answer::Failed(code) = answer {
            shadows().for_each(|(_, shadow)| shadow.count_lost(code));
        }
        if let Some(capture) = capture {
            capture.hand_over(endpoint, end, None);
        }
        return;
    };
    let bytes = run.held_bytes();
    let copied = Arc::new(CopiedRun { run, answer, bytes, at, request_id });
    for (index, shadow) in shadows() {
        let own = slices.iter_mut().find(|(of, _)| *of == index);
        shadow.offer(&copied, own.map_or_else(SliceValues::default, |(_, values)| take(values)));
    }
    if let Some(capture) = capture {
        capture.hand_over(endpoint, end, Some(&copied));
    }
    if let Some(copied) = Arc::into_inner(copied) {
        // Nobody took it. This is an IO thread, so that its next request finds the buffers.
        copied.run.recycle();
    }
}

fn live_shadow(endpoint: &LiveEndpoint, index: u8) -> Option<&LiveShadow> {
    let shadow = endpoint.shadows.get(usize::from(index))?;
    endpoint.versions[usize::from(shadow.version)].payload.shadow.as_deref()
}
