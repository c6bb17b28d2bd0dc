//! Messages on the wire: five bytes in front of each, compressed if the client says so.
//!
//! Next: `grpc/unary`.

use bytes::{Buf, Bytes};
use headgate_core::error::{Code, Error, Result};
use headgate_protocol::protobuf::{self, ModelName};

use crate::feedback::endpoint::RECEIPT;
use crate::feedback::receipt::CHARACTERS;
use crate::headers::Headers;
use crate::request::inference::{Framing, Target, WireFormat};
use crate::request_context::TIMES;
use crate::thread::request_memory::RequestMemory;
use crate::transport::body::limit_words;
use crate::transport::coding::{self, Coding, DecodeBounds};

/// The header that says how the messages of a request are compressed.
pub const ENCODING: &str = "grpc-encoding";

/// A flag and the length of the message.
pub const PREFIX: usize = 5;

/// Takes the message out of a body.
///
/// # Errors
/// `invalid_argument` for a body that is not one message, `unsupported` for a compression that is not known,
/// `payload_too_large` for more bytes than the limit when decompressed, `overloaded` when there is no memory for them,
/// `deadline_exceeded` when that is not done in time.
pub async fn take(
    headers: Headers<'_>,
    mut body: Bytes,
    bounds: DecodeBounds,
    memory: &mut RequestMemory,
) -> Result<Bytes> {
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Error::invalid(format!(
            "the body is {} bytes; a call has one message with {PREFIX} bytes in front",
            body.len()
        )));
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length > bounds.limit {
        return Err(too_large(length, bounds.limit));
    }
    if rest.len() != length {
        return Err(Error::invalid(format!(
            "the message is said to be {length} bytes, and {} follow; a call has exactly one message",
            rest.len()
        )));
    }
    body.advance(PREFIX);
    plain(headers, flag, body, bounds, memory).await
}

/// The message of a body that is one message, not compressed and within the limit; `None` for a body that [`take`] must look at.
pub fn if_plain(body: &Bytes, limit: usize) -> Option<Bytes> {
    let ([0, length @ ..], message) = body.split_first_chunk::<PREFIX>()? else { return None };
    let is_whole = message.len() == u32::from_be_bytes(*length) as usize && message.len() <= limit;
    is_whole.then(|| body.slice(PREFIX..))
}

/// The message behind its prefix, decompressed; what that takes is added to `memory`.
///
/// # Errors
/// As [`take`].
pub async fn plain(
    headers: Headers<'_>,
    flag: u8,
    message: Bytes,
    bounds: DecodeBounds,
    memory: &mut RequestMemory,
) -> Result<Bytes> {
    match flag {
        0 if message.len() <= bounds.limit => Ok(message),
        0 => Err(too_large(message.len(), bounds.limit)),
        1 => {
            let coding = encoding(headers)?;
            Box::pin(coding::decode(&message, coding, bounds, memory)).await.map(Bytes::from)
        }
        _ => Err(Error::invalid(format!("the message's flag is {flag}; it must be 0, or 1 when compressed"))),
    }
}

/// The endpoint and the version that a `ModelInferRequest` names.
///
/// # Errors
/// `invalid_argument` for a message in which they cannot be found.
pub fn target(message: &[u8]) -> Result<Target<'_>> {
    protobuf::model_name(message).map(target_of)
}

/// The endpoint and the version of these names.
pub fn target_of(names: ModelName<'_>) -> Target<'_> {
    Target { endpoint: names.name, version: names.version }
}

/// The refusal of a body that is larger than a message of `limit` bytes with its prefix, in words about the message.
pub fn of_message(error: Error, limit: usize) -> Error {
    if error.code != Code::PayloadTooLarge {
        return error;
    }
    Error::new(error.code, format!("the message is larger than {}", limit_words(limit)))
}

/// The refusal of a message beyond the limit.
pub fn too_large(length: usize, limit: usize) -> Error {
    Error::new(
        Code::PayloadTooLarge,
        format!("a message of {length} bytes is larger than {}", limit_words(limit)),
    )
}

fn encoding(headers: Headers<'_>) -> Result<Coding> {
    let name = headers.get(ENCODING);
    match name.and_then(Coding::parse) {
        Some(Some(coding)) => Ok(coding),
        Some(None) => {
            Err(Error::invalid("the message is flagged as compressed, but grpc-encoding is identity"))
        }
        None if name.is_none() => {
            Err(Error::invalid("the message is flagged as compressed, but there is no grpc-encoding"))
        }
        None => Err(Error::new(
            Code::Unsupported,
            format!(
                "grpc-encoding {:?} is not supported; gzip, deflate and identity are",
                name.map(String::from_utf8_lossy).unwrap_or_default()
            ),
        )),
    }
}

/// One response in one call.
pub const ONE: WireFormat = WireFormat::Protobuf(Framing { begin, end });

/// A response in a stream: only the room is left for it, since the stream may say more ([`end_in_stream`]).
pub const STREAMED: WireFormat = WireFormat::Protobuf(Framing { begin: begin_in_stream, end: |_| Ok(()) });

/// Leaves room for the prefix of a message that will follow in `out`.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; PREFIX]);
}

/// Completes the prefix once the message is written.
///
/// # Errors
/// `payload_too_large` for a message whose length 32 bits do not hold.
pub fn end(out: &mut [u8]) -> Result<()> {
    let length = u32::try_from(out.len() - PREFIX).map_err(|_| {
        Error::new(Code::PayloadTooLarge, "the answer is larger than 4 GiB, the limit of a gRPC message")
    })?;
    out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The most bytes of a request's times: four phases of any length.
const MOST_TIMES: usize = 128;
/// The most bytes of the tags and lengths of a parameter: the entry, its name, its value, and the text in that.
const PARAMETER: usize = 12;

/// The most bytes in front of a response in a stream: the prefix, a field's tag and length, and parameters with the request's times and
/// with the receipt of the answer.
const STREAM_HEAD: usize =
    PREFIX + 1 + 10 + TIMES.len() + MOST_TIMES + PARAMETER + RECEIPT.len() + CHARACTERS + PARAMETER;

/// What a response in a stream says in parameters, because a message of a stream has no header fields.
#[derive(Clone, Copy, Default)]
pub struct StreamParameters<'a> {
    /// The times of its request, if they were asked for.
    pub times: Option<&'a str>,
    /// The receipt of the answer, if the endpoint takes feedback.
    pub receipt: Option<&'a str>,
}

/// Leaves room in front of a response that a stream will carry.
pub fn begin_in_stream(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; STREAM_HEAD]);
}

/// Wraps a `ModelInferResponse` behind its room as a `ModelStreamInferResponse` with its prefix, and adds parameters; the offset at which
/// that begins.
///
/// # Errors
/// As [`end`].
pub fn end_in_stream(out: &mut [u8], parameters: StreamParameters<'_>) -> Result<usize> {
    let StreamParameters { times, receipt } = parameters;
    let mut parameter = Vec::new();
    if let Some(times) = times.filter(|times| times.len() <= MOST_TIMES) {
        protobuf::write_text_parameter(&mut parameter, TIMES, times);
    }
    if let Some(receipt) = receipt.filter(|receipt| receipt.len() <= CHARACTERS) {
        protobuf::write_text_parameter(&mut parameter, RECEIPT, receipt);
    }
    let mut head = Vec::with_capacity(STREAM_HEAD);
    begin(&mut head);
    protobuf::write_stream_prefix(&mut head, parameter.len() + out.len() - STREAM_HEAD);
    head.extend_from_slice(&parameter);
    let start = STREAM_HEAD - head.len();
    out[start..STREAM_HEAD].copy_from_slice(&head);
    end(&mut out[start..])?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use headgate_protocol::pb::inference::infer_parameter::ParameterChoice;
    use headgate_protocol::pb::inference::{ModelInferResponse, ModelStreamInferResponse};
    use prost::Message;

    use super::*;
    use crate::request_context::server_timing;

    #[test]
    fn a_response_in_a_stream_has_room_for_the_longest_parameters() {
        let longest = ["decode", "queue", "run", "total"].map(|name| (name, u64::MAX));
        let longest = server_timing(longest.into_iter());
        for rows in [0usize, 1, 200, 70_000] {
            let response =
                ModelInferResponse { raw_output_contents: vec![vec![7; rows].into()], ..Default::default() };
            let receipt = "r".repeat(CHARACTERS);
            let times = [None, Some("run;dur=0.001"), Some(&*longest)];
            for (times, receipt) in
                times.into_iter().flat_map(|times| [(times, None), (times, Some(&*receipt))])
            {
                let mut out = Vec::new();
                begin_in_stream(&mut out);
                response.encode(&mut out).unwrap();
                let start = end_in_stream(&mut out, StreamParameters { times, receipt }).unwrap();
                let (prefix, message) = out[start..].split_first_chunk::<PREFIX>().unwrap();
                assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
                let read = ModelStreamInferResponse::decode(message).unwrap().infer_response.unwrap();
                assert_eq!(read.raw_output_contents, response.raw_output_contents);
                for (name, wanted) in [(TIMES, times), (RECEIPT, receipt)] {
                    let told = read.parameters.get(name).and_then(|value| value.parameter_choice.clone());
                    assert_eq!(told, wanted.map(|text| ParameterChoice::StringParam(text.into())));
                }
            }
        }
    }
}
