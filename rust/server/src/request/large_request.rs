//! Large requests, whose bytes are read on a thread beside the IO thread: a million numbers in JSON take more than 10 ms.
//!
//! Not here: how they are read (`headgate_protocol`, `tensors`), and content encodings (`coding`).

use bytes::Bytes;
use headgate_core::error::Result;
use headgate_core::tensor::DataType;
use headgate_engine::Instant;
use headgate_protocol::binary::BodyParts;
use headgate_protocol::envelope::{self, ElementSource, Envelope, InputForm, InputTensor};
use headgate_protocol::protobuf;

use crate::request::inference::ParsedRequest;
use crate::request::tensors::{self, DecodedInputs, RunTarget, Scratch};
use crate::thread::offload;
use crate::thread::request_memory::RequestMemory;

/// A body of at most so many bytes is read on the IO thread, whatever is in it: that takes half a millisecond of a core in JSON,
/// and a few of them for short strings.
pub const INLINE: usize = 256 << 10;
/// The same for a protobuf message, whose tensors are located and not read.
pub const INLINE_MESSAGE: usize = 1 << 20;
/// Bytes in binary data that take as long as one byte of JSON.
const BINARY_PER_BYTE: usize = 16;
/// Bytes of JSON that take as long as one string, beside its bytes.
const BYTES_PER_STRING: usize = 16;

/// What reads the envelope of a body.
pub type Parse = for<'a> fn(BodyParts<'a>, &mut envelope::EnvelopeScratch, &mut Envelope<'a>) -> Result<()>;

/// Reads an envelope whose JSON is more than [`INLINE`] bytes on another thread. `parts` are those of `body`.
///
/// # Errors
/// Those of `parse`; `deadline_exceeded`.
pub async fn parse<'a>(
    parse: Parse,
    parts: BodyParts<'a>,
    body: &'a Bytes,
    until: Option<Instant>,
    memory: &mut RequestMemory,
) -> Result<Envelope<'a>> {
    let (json, has_tail, bytes) = (parts.json.len(), parts.tail.is_some(), body.clone());
    let detached = offload::run(until, memory, move |_| {
        let (json, tail) = bytes.split_at(json);
        let parts = BodyParts { json, tail: has_tail.then_some(tail) };
        let mut envelope = Envelope::default();
        parse(parts, &mut envelope::EnvelopeScratch::default(), &mut envelope)?;
        Ok(envelope.detach(&bytes))
    });
    Ok(detached.await?.attach(body))
}

/// Reads the envelope of a `ModelInferRequest`, on another thread if it is large.
///
/// # Errors
/// As [`protobuf::parse`]; `deadline_exceeded`.
pub async fn parse_message<'a>(
    message: &'a Bytes,
    until: Option<Instant>,
    memory: &mut RequestMemory,
) -> Result<Envelope<'a>> {
    if message.len() <= INLINE_MESSAGE {
        let request = tensors::with_scratch(|scratch| protobuf::parse(message, &mut scratch.envelope))?;
        return Ok(request.envelope);
    }
    let bytes = message.clone();
    let detached = Box::pin(offload::run(until, memory, move |_| {
        Ok(protobuf::parse(&bytes, &mut envelope::EnvelopeScratch::default())?.detach(&bytes))
    }));
    Ok(detached.await?.attach(message).envelope)
}

/// Whether the tensors of an envelope take long to decode, if the body is more than [`INLINE`] bytes.
pub fn takes_long(envelope: &Envelope<'_>) -> bool {
    let form = match envelope.form {
        InputForm::Listed => 0,
        InputForm::Raw(bytes) => bytes.len() / BINARY_PER_BYTE,
        InputForm::Rows(json) | InputForm::Columns(json) => json.len(),
    };
    // A shape may say anything before it is compared with the elements.
    envelope.inputs.iter().map(cost).fold(form, usize::saturating_add) > INLINE
}

/// What an input costs, in bytes of JSON.
fn cost(input: &InputTensor<'_>) -> usize {
    let bytes = match input.source {
        ElementSource::JsonList(bytes)
        | ElementSource::JsonScalar(bytes)
        | ElementSource::ProtobufContents(bytes) => bytes.len(),
        ElementSource::Binary(bytes) => bytes.len() / BINARY_PER_BYTE,
    };
    let strings = if input.datatype == DataType::Bytes { input.shape.count() } else { 0 };
    // A name is compared, and quoted if it is wrong.
    strings.saturating_mul(BYTES_PER_STRING).saturating_add(input.name.len() + bytes)
}

/// As [`tensors::decode`], on another thread and within the deadline of the target.
///
/// # Errors
/// As [`tensors::decode`]; `deadline_exceeded`.
pub async fn decode(
    request: &ParsedRequest<'_>,
    target: RunTarget,
    memory: &mut RequestMemory,
) -> Result<DecodedInputs> {
    let ParsedRequest { envelope, body, .. } = *request;
    let (detached, bytes) = (envelope.detach_inputs(body), body.clone());
    let decoded = offload::run(Some(target.waiter.deadline), memory, move |memory| {
        let envelope = detached.attach(&bytes);
        let count_bytes = &mut |bytes| memory.add_bytes(bytes);
        tensors::decode(&envelope, &bytes, target, &mut Scratch::default(), count_bytes)
    });
    decoded.await
}

#[cfg(test)]
mod tests {
    use headgate_core::spec::NonFinite;
    use headgate_core::tensor::Shape;

    use super::*;

    #[test]
    fn strings_that_a_shape_claims_take_long_however_many() {
        let input = |name: &'static str, count: i64| InputTensor {
            name: name.into(),
            datatype: DataType::Bytes,
            shape: Shape::new(&[count]).unwrap(),
            source: ElementSource::JsonList(b"[]"),
            base64: false,
            non_finite: NonFinite::Error,
        };
        // The most elements that a shape may have.
        let most = i64::MAX / 16;
        for (counts, long) in [([most; 3], true), ([most, 1, 1], true), ([1, 2, 3], false)] {
            let inputs = counts.into_iter().zip(["a", "b", "c"]);
            let inputs = inputs.map(|(count, name)| input(name, count)).collect();
            assert_eq!(takes_long(&Envelope { inputs, ..Envelope::default() }), long, "{counts:?}");
        }
    }
}
