//! The context that a client gives for its request in header fields: a trace, a request id, a time-out, and whether to report the times.
//!
//! Not here: the id in the message, which belongs to the protocol (`envelope`).

mod trace;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::headers::Headers;

pub use self::trace::Trace;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SERVER_TIMING: HeaderName = HeaderName::from_static(TIMES);

/// What asks for the times of a request: a header field, and a parameter of a message on a stream.
pub const ASKS_FOR_TIMES: &str = "x-headgate-timing";
/// What has them in the answer.
pub const TIMES: &str = "server-timing";

/// No times, for a response without a version.
pub const UNTIMED: Option<fn() -> std::iter::Empty<PhaseTime>> = None;

/// A phase and how long it took, in nanoseconds.
pub type PhaseTime = (&'static str, u64);

/// The most bytes of a request id that are echoed and logged.
const MAX_ID: usize = 256;

/// The context of one request.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// The trace, with a span of the gateway.
    pub trace: Option<Trace>,
    /// The request id of the client.
    pub request_id: Option<HeaderValue>,
    /// How long the client waits, as it wrote it.
    pub timeout: Option<HeaderValue>,
    /// Whether the response reports its times.
    timed: bool,
}

impl RequestContext {
    /// Reads the header fields of a request. `draw` gives the id of a span. If a name occurs more than once, its first value counts.
    pub fn read(headers: Headers<'_>, draw: impl FnOnce() -> u64) -> RequestContext {
        let names = ["traceparent", "x-request-id", ASKS_FOR_TIMES, "x-headgate-timeout"];
        let [trace, id, timing, timeout] = headers.first_values(names);
        let span = || draw().max(1);
        let trace = trace.and_then(|value| Trace::parse(value, span));
        let request_id = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let request_id = request_id.and_then(|value| headers.to_value(value));
        let timeout = timeout.and_then(|value| headers.to_value(value));
        RequestContext { trace, request_id, timeout, timed: timing == Some(b"1") }
    }

    /// Adds the context to the header fields of a response. `times` has its phases, and how long they took in nanoseconds.
    pub fn add_to<T: Iterator<Item = PhaseTime>>(
        &self,
        fields: &mut impl ContextFields,
        times: Option<impl FnOnce() -> T>,
    ) {
        if let Some(trace) = &self.trace {
            fields.add_trace(trace);
        }
        if let Some(id) = &self.request_id {
            fields.extend([(REQUEST_ID.clone(), id.clone())]);
        }
        if let Some(times) = times.filter(|_| self.timed) {
            let text = server_timing(times());
            let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
            fields.extend([(SERVER_TIMING.clone(), value)]);
        }
    }
}

/// The header fields of a response, which a context adds to.
pub trait ContextFields: Extend<(HeaderName, HeaderValue)> {
    /// Adds the trace for the next hop.
    fn add_trace(&mut self, trace: &Trace);
}

impl ContextFields for HeaderMap {
    fn add_trace(&mut self, trace: &Trace) {
        let (name, value) = trace.field();
        self.insert(name, value);
    }
}

/// The phases in the form of `Server-Timing`, in milliseconds.
pub fn server_timing(times: impl Iterator<Item = PhaseTime>) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(96);
    for (name, ns) in times {
        let separator = if text.is_empty() { "" } else { ", " };
        // A write to a string never fails.
        let _ = write!(text, "{separator}{name};dur={:.3}", ns as f64 / 1e6);
    }
    text
}
