//! The outcome of a call as trailers: our code and message, and gRPC's status.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::LazyLock;

use headgate_core::error::{Code, Error};
use headgate_http2::write_field;
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

use crate::reply_fields::ReplyFields;
use crate::thread::io::Io;
use crate::transport::call_reply::{CallBody, CallReply, Trailers};
use crate::transport::connection_state::{ConnectionState, OpenRequest};

/// The content type of every response.
const CONTENT: &str = "application/grpc";
static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Our own code of a failure.
pub static CODE: HeaderName = HeaderName::from_static("x-headgate-code");

/// The refusal of a call whose deadline is over.
pub fn call_deadline_error() -> Error {
    Error::new(Code::DeadlineExceeded, "the call's deadline (grpc-timeout) passed")
}

/// Counts and answers a call that was refused before a version was chosen.
pub fn count_and_refuse(io: &Io, error: &Error, conn: &Rc<ConnectionState>, open: OpenRequest) -> CallReply {
    io.shared.metrics.thread(io.thread).count_refusal(error.code);
    refusal(io, error, conn, open)
}

/// The response to a call that was refused and is counted.
pub fn refusal(io: &Io, error: &Error, conn: &Rc<ConnectionState>, open: OpenRequest) -> CallReply {
    reply(io, CallBody::message(None, error_trailers(error), None, conn, open))
}

/// The reply to a call, without header fields yet.
pub fn reply(io: &Io, body: CallBody) -> CallReply {
    reply_with(ReplyFields::in_memory_of(io.fields.take()), body)
}

/// The reply to a call with these header fields.
pub fn reply_with(fields: ReplyFields, body: CallBody) -> CallReply {
    CallReply { content: CONTENT, fields, body }
}

static OK_TRAILERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut block = Vec::new();
    write_field(&mut block, STATUS.as_str().as_bytes(), b"0");
    block
});

/// The trailers of a good response.
pub fn ok_trailers() -> Trailers {
    Trailers::Block(&OK_TRAILERS)
}

/// The trailers of a failure.
pub fn error_trailers(error: &Error) -> Trailers {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(STATUS.clone(), HeaderValue::from(u16::from(status(error.code))));
    trailers.insert(MESSAGE.clone(), percent_encoded(&error.message));
    trailers.insert(CODE.clone(), HeaderValue::from_static(error.code.as_str()));
    if error.code.retry() {
        let wait = error.retry_after.map_or(1000, |wait| wait.as_millis().max(1) as u64);
        trailers.insert(PUSHBACK.clone(), HeaderValue::from(wait));
    }
    Trailers::Map(trailers)
}

/// The status of a code. A body that did not come in time has none of its own.
pub fn status(code: Code) -> u8 {
    code.grpc().or(Code::DeadlineExceeded.grpc()).unwrap_or_default()
}

/// An error as tonic's services take it.
pub fn as_status(error: &Error) -> tonic::Status {
    let mut status = tonic::Status::new(i32::from(status(error.code)).into(), truncated(&error.message));
    if let Ok(code) = error.code.as_str().parse() {
        status.metadata_mut().insert(CODE.as_str(), code);
    }
    status
}

/// The most bytes of a message in a header: clients refuse trailers beyond 8 KiB, and with them the status.
const MESSAGE_BYTES: usize = 2 << 10;

/// As much of a message as a header holds once it is encoded.
pub fn truncated(message: &str) -> Cow<'_, str> {
    let mut room = MESSAGE_BYTES;
    let mut fits = |(_, char): &(usize, char)| {
        let encoded = if matches!(char, ' '..='~') && *char != '%' { 1 } else { 3 * char.len_utf8() };
        let left = room.checked_sub(encoded);
        room = left.unwrap_or_default();
        left.is_some()
    };
    match message.char_indices().find(|place| !fits(place)) {
        None => Cow::Borrowed(message),
        Some((end, _)) => Cow::Owned(format!("{}...", &message[..end])),
    }
}

/// A message as a header value: everything but printable ASCII is percent-encoded (gRPC over HTTP/2, "Status-Message").
pub fn percent_encoded(message: &str) -> HeaderValue {
    let message = truncated(message);
    let mut out = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => out.push(byte),
        }
    }
    HeaderValue::from_bytes(&out).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50 % of \"Bär\"\n"), "50 %25 of \"B%C3%A4r\"%0A");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(truncated("short"), "short");
        for message in ["x".repeat(9_000), "ä".repeat(9_000), "%\u{1F980}".repeat(9_000)] {
            let truncated = truncated(&message);
            assert!(message.starts_with(truncated.strip_suffix("...").unwrap()));
            let length = percent_encoded(&message).len();
            assert!((MESSAGE_BYTES - 12..=MESSAGE_BYTES + 3).contains(&length), "{length}");
        }
    }

    #[test]
    fn any_message_can_be_a_header() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            assert!(percent_encoded(&String::from_utf8_lossy(bytes)).to_str().is_ok());
        });
    }
}
