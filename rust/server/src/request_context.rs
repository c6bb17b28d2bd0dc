//! The context that a client gives for its request in header fields: a trace, a request id, a time-out, and whether to report the times.
//!
//! Not here: the id in the message, which belongs to the protocol (`envelope`).

use http::header::{HeaderName, HeaderValue};

use crate::headers::Headers;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
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

/// A position in a trace (W3C Trace Context, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The id of the trace.
    pub id: u128,
    /// The span of the caller.
    pub parent: u64,
    /// The span of the gateway.
    pub span: u64,
    /// The flags of the caller.
    flags: u8,
}

impl RequestContext {
    /// Reads the header fields of a request. `draw` gives the id of a span. If a name occurs more than once, its first value counts.
    pub fn read(headers: Headers<'_>, draw: impl FnOnce() -> u64) -> RequestContext {
        let names = ["traceparent", "x-request-id", ASKS_FOR_TIMES, "x-headgate-timeout"];
        let [trace, id, timing, timeout] = headers.first_values(names);
        let span = || draw().max(1);
        let trace = trace.and_then(|value| Trace::parse(value, span));
        let request_id = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let [request_id, timeout] = [request_id, timeout].map(|value| headers.to_value(value?));
        RequestContext { trace, request_id, timeout, timed: timing == Some(b"1") }
    }

    /// Adds the context to the header fields of a response. `times` has its phases, and how long they took in nanoseconds.
    pub fn add_to<T: Iterator<Item = PhaseTime>>(
        &self,
        fields: &mut impl Extend<(HeaderName, HeaderValue)>,
        times: Option<impl FnOnce() -> T>,
    ) {
        if let Some(trace) = &self.trace {
            fields.extend([(TRACEPARENT.clone(), trace.header())]);
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

impl Trace {
    /// Continues the trace of a caller with a new span. `None` for a value that is not `00-<32 hex>-<16 hex>-<2 hex>` in lower case with ids
    /// that are not 0: the standard says to ignore it.
    fn parse(value: &[u8], span: impl FnOnce() -> u64) -> Option<Trace> {
        let text = std::str::from_utf8(value).ok()?;
        let [version, id, parent, flags] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        let hex = |text: &str, digits: usize| {
            text.len() == digits
                && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        if version != "00" || !hex(id, 32) || !hex(parent, 16) || !hex(flags, 2) {
            return None;
        }
        let id = u128::from_str_radix(id, 16).ok().filter(|&id| id != 0)?;
        let parent = u64::from_str_radix(parent, 16).ok().filter(|&parent| parent != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Trace { id, parent, span: span(), flags })
    }

    /// The header field for the next hop, with the span of the gateway as the parent.
    fn header(&self) -> HeaderValue {
        let text = format!("00-{:032x}-{:016x}-{:02x}", self.id, self.span, self.flags);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_continued_or_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |text: &[u8]| Trace::parse(text, || 7);
        let trace = read(good.as_bytes()).unwrap();
        assert_eq!(
            (trace.id, trace.parent, trace.span),
            (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, 7)
        );
        assert_eq!(trace.header(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01");
        bolero::check!().with_type::<(Vec<u8>, u8)>().for_each(|(bytes, at)| {
            let mut changed = good.as_bytes().to_vec();
            let at = usize::from(*at) % changed.len();
            changed.splice(at..at + 1, bytes.iter().copied());
            for text in [bytes, &changed] {
                if let Some(trace) = read(text) {
                    assert_eq!(text.len(), good.len());
                    assert_ne!((trace.id, trace.parent), (0, 0));
                }
            }
        });
    }
}
