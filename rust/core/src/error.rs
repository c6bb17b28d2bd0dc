//! The closed table of error codes. A row has the name, the HTTP status, the gRPC status, and whether a retry can help.
//!
//! Not here: how an error is written on the wire (`headgate-protocol` and the server do that).
//! Next: `id`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A gRPC status number as in the gRPC specification (`INVALID_ARGUMENT` is 3).
pub type GrpcStatus = u8;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = ($name:literal, $http:expr, $grpc:expr, $retry:expr);)+) => {
        /// Every code that Headgate answers with. Texts may change, codes may not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The name on the wire, in metrics and in the docs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)+ }
            }

            /// The HTTP status; `None` if no response is sent.
            pub const fn http(self) -> Option<u16> {
                match self { $(Code::$variant => $http,)+ }
            }

            /// The gRPC status; `None` if the code never occurs on gRPC.
            pub const fn grpc(self) -> Option<GrpcStatus> {
                match self { $(Code::$variant => $grpc,)+ }
            }

            /// Whether the same request may succeed later.
            pub const fn retry(self) -> bool {
                match self { $(Code::$variant => $retry,)+ }
            }
        }
    };
}

codes! {
    /// The request is malformed, or does not fit the model's signature.
    InvalidArgument = ("invalid_argument", Some(400), Some(3), false);
    /// No token, or a token that is not known.
    Unauthenticated = ("unauthenticated", Some(401), Some(16), false);
    /// A known token whose role does not allow this.
    PermissionDenied = ("permission_denied", Some(403), Some(7), false);
    /// No endpoint of that name.
    ModelNotFound = ("model_not_found", Some(404), Some(5), false);
    /// The endpoint exists, that version of it does not.
    VersionNotFound = ("version_not_found", Some(404), Some(5), false);
    /// No such path, revision, operation or other thing.
    NotFound = ("not_found", Some(404), Some(5), false);
    /// The body did not arrive in time.
    RequestTimeout = ("request_timeout", Some(408), None, true);
    /// The body is larger than the limit.
    PayloadTooLarge = ("payload_too_large", Some(413), Some(8), false);
    /// The body's `Content-Encoding` is not one that is decoded here.
    UnsupportedMediaType = ("unsupported_media_type", Some(415), None, false);
    /// The `Host` header names a server that this one is not.
    Misdirected = ("misdirected", Some(421), None, false);
    /// The caller's quota is used up.
    RateLimited = ("rate_limited", Some(429), Some(8), true);
    /// The caller left before the response.
    Cancelled = ("cancelled", None, Some(1), false);
    /// The method exists elsewhere in the protocol, not here.
    Unsupported = ("unsupported", Some(501), Some(12), false);
    /// Load is shed on purpose.
    Overloaded = ("overloaded", Some(503), Some(14), true);
    /// The version is known but cannot answer yet.
    ModelNotReady = ("model_not_ready", Some(503), Some(14), true);
    /// The gateway is about to stop.
    Draining = ("draining", Some(503), Some(14), true);
    /// The state could not be written.
    StorageFailed = ("storage_failed", Some(503), Some(14), true);
    /// The deadline passed before the response was there.
    DeadlineExceeded = ("deadline_exceeded", Some(504), Some(4), false);
    /// The model's run failed.
    BackendFailed = ("backend_failed", Some(500), Some(13), false);
    /// A defect of Headgate itself.
    Internal = ("internal", Some(500), Some(13), false);
    /// The write contradicts the current state.
    Conflict = ("conflict", Some(409), None, false);
    /// `If-Match` names a revision that is not the current one.
    RevisionConflict = ("revision_conflict", Some(412), None, true);
    /// The write needs `If-Match` or `If-None-Match`.
    PreconditionRequired = ("precondition_required", Some(428), None, false);
    /// The document has faults; nothing was changed.
    PolicyInvalid = ("policy_invalid", Some(422), None, false);
    /// A version could not be loaded; the running revision keeps serving.
    ModelLoadFailed = ("model_load_failed", Some(422), None, false);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A refusal: a code and a sentence that says what was wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The row of the table.
    pub code: Code,
    /// The sentence; not an interface.
    pub message: Cow<'static, str>,
    /// How long to wait before a retry, if that is known.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of any code. A message beyond [`MAX_MESSAGE`] bytes is cut: it may quote what a client sent.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: cut(message.into()), retry_after: None }
    }

    /// The same, with the time after which a retry may help.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The commonest kind: the client's request is wrong.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
}

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = 4 << 10;

fn cut(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let end = message.floor_char_boundary(MAX_MESSAGE);
    // A copy, because a slice would keep the memory of the whole message.
    Cow::Owned(format!("{}...", &message[..end]))
}

/// A result whose error has a code of the table.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let whole = "x".repeat(MAX_MESSAGE);
        assert_eq!(Error::invalid(whole.clone()).message, whole);
        let cut = Error::invalid("ä".repeat(10 * MAX_MESSAGE)).message.into_owned();
        assert!(cut.ends_with("ä...") && cut.len() <= MAX_MESSAGE + 3 && cut.capacity() < 3 * MAX_MESSAGE);
    }

    #[test]
    fn names_are_unique_and_statuses_are_errors() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.http().is_none_or(|status| (400..600).contains(&status)), "{code}");
            assert!(code.grpc().is_none_or(|status| (1..=16).contains(&status)), "{code}");
        }
    }
}
