//! Why the gateway closed connections of the data ports before their clients did.

use crate::metrics::reason_counters::ReasonLabel;

/// The reason for a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No request came.
    Idle,
    /// A request's head was not complete in time.
    HeadTimeout,
    /// A request's body was not complete in time.
    BodyTimeout,
    /// A request's body was larger than a body may be, so that the next request could not be found behind it.
    BodyTooLarge,
    /// The client took nothing of its answers.
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

    /// As the control plane's ports call it.
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
