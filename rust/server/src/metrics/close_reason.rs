//! The reasons for which the gateway closes connections of the data ports before their clients do.

use crate::metrics::reason_counters::ReasonLabel;

/// The reason for a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No request arrived in time.
    Idle,
    /// A request's head was not complete in time.
    HeadTimeout,
    /// A request's body was not complete in time.
    BodyTimeout,
    /// The body of a request exceeded the limit, so the next request behind it could not be found.
    BodyTooLarge,
    /// The client did not read its responses.
    Unread,
    /// A new connection needed room.
    Crowded,
}

impl ReasonLabel for CloseReason {
    const ALL: &[CloseReason] = &[
        CloseReason::Idle,
        CloseReason::HeadTimeout,
        CloseReason::BodyTimeout,
        CloseReason::BodyTooLarge,
        CloseReason::Unread,
        CloseReason::Crowded,
    ];

    /// The ports of the control plane use the same words.
    fn name(self) -> &'static str {
        match self {
            CloseReason::Idle => "idle",
            CloseReason::HeadTimeout => "head_timeout",
            CloseReason::BodyTimeout => "body_timeout",
            CloseReason::BodyTooLarge => "body_too_large",
            CloseReason::Unread => "unread",
            CloseReason::Crowded => "crowded",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}
