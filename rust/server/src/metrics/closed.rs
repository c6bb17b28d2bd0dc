//! Why the gateway closed connections of the data ports before their clients did.

use crate::metrics::by_reason::Labelled;

/// The reason for a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
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

impl Labelled for Reason {
    const ALL: &[Reason] = &[
        Reason::Idle,
        Reason::HeadTimeout,
        Reason::BodyTimeout,
        Reason::BodyTooLarge,
        Reason::Unread,
        Reason::Crowded,
    ];

    /// As the control plane's ports call it.
    fn name(self) -> &'static str {
        match self {
            Reason::Idle => "idle",
            Reason::HeadTimeout => "head_timeout",
            Reason::BodyTimeout => "body_timeout",
            Reason::BodyTooLarge => "body_too_large",
            Reason::Unread => "unread",
            Reason::Crowded => "crowded",
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}
