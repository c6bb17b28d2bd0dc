//! An answer as a transport hands it over, whatever the wire.

use std::borrow::Cow;

use headgate_core::error::Code;

use crate::phases::Phases;
use crate::records::Outcome;

/// An answer that was read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) status: Status<'a>,
    pub(crate) phases: Option<Phases>,
    /// What was kept of the body.
    pub(crate) body: &'a [u8],
    /// Whether the body was kept whole.
    pub(crate) whole: bool,
    pub(crate) form: BodyForm,
}

/// How the values of a body are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyForm {
    /// JSON, or anything else.
    Json,
    /// This many bytes of JSON, and tensors behind them.
    Binary { json_bytes: usize },
    /// A `ModelInferResponse`.
    Infer,
    /// A `ModelStreamInferResponse`.
    StreamInfer,
}

/// Whether it went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status<'a> {
    Http(u16),
    /// The number and the message of a gRPC status.
    Grpc(u8, &'a str),
    /// The `error_message` of an answer on a stream, and the code beside it if the server says one.
    StreamError(&'a str, Option<Code>),
}

const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;

/// The names of gRPC statuses by their numbers.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Status<'_> {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Status::Http(200..300) | Status::Grpc(0, _) => Outcome::Good,
            Status::Http(429 | 503) | Status::Grpc(RESOURCE_EXHAUSTED | UNAVAILABLE, _) => Outcome::Shed,
            Status::StreamError(_, Some(code)) if matches!(code.http(), Some(429 | 503)) => Outcome::Shed,
            Status::Http(_) | Status::Grpc(..) | Status::StreamError(..) => Outcome::Failed,
        }
    }
}

impl<'a> Reply<'a> {
    /// What went wrong, as errors are counted: the status, and the code of an error of this protocol.
    pub(crate) fn what(&self) -> Cow<'static, str> {
        match self.status {
            Status::Http(status) => match error_code(self.body) {
                Some(code) => format!("{status} {code}").into(),
                None => {
                    let reason = http::StatusCode::from_u16(status).ok();
                    let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
                    format!("{status} {reason}").trim_end().to_owned().into()
                }
            },
            Status::Grpc(code, _) => match GRPC_NAMES.get(usize::from(code)) {
                Some(name) => (*name).into(),
                None => format!("gRPC status {code}").into(),
            },
            Status::StreamError(_, Some(code)) => format!("error_message on a stream: {code}").into(),
            Status::StreamError(_, None) => "error_message on a stream".into(),
        }
    }

    /// The beginning of what the server said about it.
    pub(crate) fn example(&self) -> &'a [u8] {
        let said = match self.status {
            Status::Http(_) => self.body,
            Status::Grpc(_, message) | Status::StreamError(message, _) => message.as_bytes(),
        };
        &said[..said.len().min(crate::http1::parser::EXAMPLE_BYTES)]
    }
}

/// The `code` of `{"error": text, "code": code}`, of which only the beginning may be there.
fn error_code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let value = &text[text.find("\"code\"")? + 6..];
    let value = value.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let code = &value[..value.find('"')?];
    let plain = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (plain && !code.is_empty() && code.len() <= 40).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply<'a>(status: Status<'a>, body: &'a [u8]) -> Reply<'a> {
        Reply { status, phases: None, body, whole: false, form: BodyForm::Json }
    }

    #[test]
    fn an_error_is_counted_by_status_and_code() {
        for (status, body, what, outcome) in [
            (
                Status::Http(503),
                &br#"{"error":"full","code": "overloaded"}"#[..],
                "503 overloaded",
                Outcome::Shed,
            ),
            (Status::Http(429), b"", "429 Too Many Requests", Outcome::Shed),
            (Status::Http(500), b"<html>", "500 Internal Server Error", Outcome::Failed),
            (Status::Http(599), br#"{"code":"a b"}"#, "599", Outcome::Failed),
            (Status::Grpc(14, "later"), b"", "UNAVAILABLE", Outcome::Shed),
            (Status::Grpc(8, ""), b"", "RESOURCE_EXHAUSTED", Outcome::Shed),
            (Status::Grpc(3, ""), b"", "INVALID_ARGUMENT", Outcome::Failed),
            (Status::Grpc(200, ""), b"", "gRPC status 200", Outcome::Failed),
            (Status::StreamError("no", None), b"", "error_message on a stream", Outcome::Failed),
            (
                Status::StreamError("full", Some(Code::Overloaded)),
                b"",
                "error_message on a stream: overloaded",
                Outcome::Shed,
            ),
            (
                Status::StreamError("long", Some(Code::PayloadTooLarge)),
                b"",
                "error_message on a stream: payload_too_large",
                Outcome::Failed,
            ),
        ] {
            assert_eq!((&*reply(status, body).what(), status.outcome()), (what, outcome));
        }
        assert_eq!(reply(Status::Grpc(14, "later"), b"").example(), b"later");
    }
}
