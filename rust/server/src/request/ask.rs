//! What the phases are asked, and what they answer.

use std::time::{Instant, SystemTime};

use headgate_core::error::{Error, Result};
use headgate_core::id::MAX_NAME;

use crate::after::access_log::{Entry, Protocol};
use crate::after::state;
use crate::after::taps::Tap;
use crate::headers::Headers;
use crate::request_context::RequestContext;

/// The endpoint, and the version when the caller names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// The version's name.
    pub version: Option<&'a str>,
}

/// A request, its body aside.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What is asked.
    pub target: Target<'a>,
    /// The headers.
    pub headers: Headers<'a>,
    /// When its first byte came.
    pub received: Instant,
    /// When its transport stops waiting.
    pub deadline: Option<Instant>,
    /// How its answer is written.
    pub dialect: Dialect,
    /// Which wire it came by.
    pub protocol: Protocol,
    /// What came with it.
    pub context: &'a RequestContext,
}

impl Ask<'_> {
    /// Writes a request down that was refused before a version was chosen, if the access log takes it.
    pub fn refused(&self, error: &Error) {
        write_refusal(self.target.endpoint, self.protocol, self.received, self.context, error);
    }
}

/// As [`Ask::refused`], for a request that may not have said which endpoint it is for.
pub fn write_refusal(
    endpoint: &str,
    protocol: Protocol,
    received: Instant,
    context: &RequestContext,
    error: &Error,
) {
    let Some(log) = state::sampled_log() else { return };
    log.log(Entry {
        at: SystemTime::now(),
        protocol,
        // What is longer is no endpoint's name.
        endpoint: endpoint[..endpoint.floor_char_boundary(MAX_NAME)].into(),
        version: None,
        direct: false,
        code: Some(error.code),
        delivered: true,
        rows: 0,
        fallback: None,
        times_ns: vec![("total", received.elapsed().as_nanos() as u64)],
        context: context.clone(),
    });
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    /// JSON, with binary data behind it where that is asked for, or in the form of `:predict`.
    Rest,
    /// A protobuf message in the framing of its wire.
    Protobuf(Framing),
}

/// What a wire puts around a message.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// Leaves room in front of the message.
    pub begin: fn(&mut Vec<u8>),
    /// Completes it once the message is written.
    pub end: fn(&mut [u8]) -> Result<()>,
}

/// What a version answered, good or bad.
pub struct Answer {
    /// Where the answer's JSON ends, or why there is none.
    pub result: Result<Sent>,
    /// The answer's bytes.
    pub body: Vec<u8>,
    /// What is left to do when they are out.
    pub tap: Tap,
}

/// A good answer.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The length of the JSON when binary data follows it.
    pub json_length: Option<usize>,
}
