//! An inference call and its response, as the phases take and give them.
//!
//! Next: `infer`, the phases.

use std::time::SystemTime;

use bytes::Bytes;
use headgate_core::error::{Error, Result};
use headgate_core::id::MAX_NAME;
use headgate_engine::Instant;
use headgate_protocol::envelope::Envelope;

use crate::after::access_log::{LogEntry, Protocol};
use crate::after::record::RecordHandle;
use crate::after::thread_state;
use crate::headers::Headers;
use crate::request_context::RequestContext;
use crate::thread::io::Io;

/// The endpoint, and the version if the caller names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// The version's name.
    pub version: Option<&'a str>,
}

/// What every wire knows of an inference request before its body.
#[derive(Clone, Copy)]
pub struct InferCall<'a> {
    /// The headers.
    pub headers: Headers<'a>,
    /// When its first byte came.
    pub received: Instant,
    /// When its transport stops waiting.
    pub deadline: Option<Instant>,
    /// How its response is written.
    pub wire_format: WireFormat,
    /// Which wire it came by.
    pub protocol: Protocol,
    /// What came with it.
    pub context: &'a RequestContext,
}

impl InferCall<'_> {
    /// Counts and logs a request that was refused before a version was chosen. `endpoint` is the name that it gave, or empty.
    pub fn book_refusal(&self, io: &Io, endpoint: &str, error: &Error) {
        io.shared.metrics.thread(io.thread).count_refusal(error.code);
        let Some(log) = thread_state::sampled_log(io) else { return };
        log.log(LogEntry {
            at: SystemTime::now(),
            protocol: self.protocol,
            // A longer text is the name of no endpoint.
            endpoint: endpoint[..endpoint.floor_char_boundary(MAX_NAME)].into(),
            version: None,
            direct: false,
            rule: None,
            code: Some(error.code),
            delivered: true,
            rows: 0,
            fallback: None,
            times_ns: vec![("total", self.received.elapsed().as_nanos() as u64)],
            context: self.context.clone(),
        });
    }
}

/// A request whose envelope is known.
#[derive(Clone, Copy)]
pub struct ParsedRequest<'a> {
    /// The envelope.
    pub envelope: &'a Envelope<'a>,
    /// What the envelope borrows from. Tensors may lie in it until the response is out.
    pub body: &'a Bytes,
    /// How the response is written.
    pub wire_format: WireFormat,
}

/// How a response is written.
#[derive(Clone, Copy, Debug)]
pub enum WireFormat {
    /// JSON, with binary data behind it if that is asked for, or in the form of `:predict`.
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
pub struct InferResponse {
    /// Where the response's JSON ends, or why there is none.
    pub result: Result<ResponseLayout>,
    /// The response's bytes.
    pub body: Vec<u8>,
    /// What is booked when they are out.
    pub record: RecordHandle,
    /// When the request is of no use any more.
    pub deadline: Instant,
}

/// A good response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseLayout {
    /// The length of the JSON when binary data follows it.
    pub json_length: Option<usize>,
}
