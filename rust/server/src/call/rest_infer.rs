//! Inference over REST: the path, and a body of JSON with binary data behind it or not, as the phases take them.
//!
//! Next: `request::infer`, the phases.

use bytes::Bytes;
use headgate_core::error::{Error, Result};
use headgate_engine::Instant;
use headgate_protocol::binary::{self, BodyParts};
use headgate_protocol::envelope::{self, Envelope};
use headgate_protocol::predict;

use crate::headers::Headers;
use crate::request::infer::InferWire;
use crate::request::inference::Target;
use crate::request::large_request::{self, Parse};
use crate::request::tensors;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;
use crate::transport::body::BodySource;
use crate::transport::coding;

/// What stands in the body of an inference request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// The inputs by name, in JSON or in binary data behind it.
    Listed,
    /// The JSON of `:predict`, and nothing else.
    Predict,
}

/// An inference request over REST.
pub struct RestInfer<'a> {
    target: Target<'a>,
    headers: Headers<'a>,
    form: BodyForm,
    source: &'a mut BodySource,
    body: Bytes,
}

impl<'a> RestInfer<'a> {
    /// A request to `target` whose body is still to be read.
    pub fn new(target: Target<'a>, headers: Headers<'a>, form: BodyForm, source: &'a mut BodySource) -> Self {
        Self { target, headers, form, source, body: Bytes::new() }
    }
}

impl InferWire for RestInfer<'_> {
    const NAMED_BY_PATH: bool = true;

    fn target(&self) -> Result<Target<'_>> {
        Ok(self.target)
    }

    fn take_body(&mut self, io: &Io) -> Option<RequestMemory> {
        let is_encoded = self.headers.get("content-encoding").is_some();
        let read = if is_encoded { None } else { self.source.take_buffered(io) }?;
        self.body = read.bytes;
        Some(read.memory)
    }

    async fn read_body(&mut self, until: Option<Instant>) -> Result<RequestMemory> {
        let limit = io::with(|io| io.shared.config.max_body_bytes);
        let read = coding::read_body(self.source, limit, self.headers, tensor_offset, until).await?;
        self.body = read.bytes;
        Ok(read.memory)
    }

    fn body(&self) -> &Bytes {
        &self.body
    }

    fn read_short_envelope<'b>(&'b self, into: &mut Envelope<'b>) -> Result<bool> {
        let (parse, parts) = self.parts()?;
        if parts.json.len() > large_request::INLINE {
            return Ok(false);
        }
        tensors::with_scratch(|scratch| parse(parts, &mut scratch.envelope, into))?;
        Ok(true)
    }

    async fn read_envelope<'b>(
        &'b self,
        until: Option<Instant>,
        memory: &mut RequestMemory,
    ) -> Result<Envelope<'b>> {
        let (parse, parts) = self.parts()?;
        Box::pin(large_request::parse(parse, parts, &self.body, until, memory)).await
    }
}

impl RestInfer<'_> {
    /// The parts of the body, and what reads them.
    #[inline(always)]
    fn parts(&self) -> Result<(Parse, BodyParts<'_>)> {
        Ok(match self.form {
            BodyForm::Listed => (listed_envelope, split(self.headers, &self.body)?),
            BodyForm::Predict => (predict_envelope, BodyParts { json: &self.body, tail: None }),
        })
    }
}

fn listed_envelope<'a>(
    parts: BodyParts<'a>,
    scratch: &mut envelope::EnvelopeScratch,
    into: &mut Envelope<'a>,
) -> Result<()> {
    into.read(parts, scratch)
}

fn predict_envelope<'a>(
    parts: BodyParts<'a>,
    scratch: &mut envelope::EnvelopeScratch,
    into: &mut Envelope<'a>,
) -> Result<()> {
    *into = predict::parse(parts.json, scratch)?;
    Ok(())
}

/// The JSON of a request and the binary data behind it.
///
/// # Errors
/// `invalid_argument`.
fn split<'a>(headers: Headers<'_>, body: &'a [u8]) -> Result<BodyParts<'a>> {
    let length = headers.get(binary::LENGTH_HEADER);
    // Mostly there is no such header, and then the fields are not searched again.
    if let Some(length) = length
        && let Some(other) = headers.values(binary::LENGTH_HEADER).find(|&other| other != length)
    {
        return Err(two_lengths(length, other));
    }
    binary::split(body, length)
}

/// The refusal of two ends of the JSON: whichever is taken, a proxy in front may have taken the other.
#[cold]
fn two_lengths(one: &[u8], other: &[u8]) -> Error {
    Error::invalid(format!(
        "Inference-Header-Content-Length is both \"{}\" and \"{}\"; send it once",
        one.escape_ascii(),
        other.escape_ascii()
    ))
}

/// Where the first binary tensor of a body begins: behind the JSON.
fn tensor_offset(_: &[u8], headers: Headers<'_>) -> Option<usize> {
    std::str::from_utf8(headers.get(binary::LENGTH_HEADER)?).ok()?.trim().parse().ok()
}
