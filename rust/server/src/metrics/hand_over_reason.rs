//! Why a connection of HTTP/1.1 was handed to hyper, which costs its client more for each request from then on.

use crate::metrics::reason_counters::ReasonLabel;

/// The reason for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverReason {
    /// What came is no whole head, or one that is too long for the fast reader.
    Head,
    /// The request needs more than the fast reader has: chunks, an escape in its path, a long body, many fields.
    Request,
    /// The body did not come with its head.
    Body,
}

impl ReasonLabel for HandOverReason {
    const ALL: &[HandOverReason] = &[HandOverReason::Head, HandOverReason::Request, HandOverReason::Body];

    fn name(self) -> &'static str {
        match self {
            HandOverReason::Head => "head",
            HandOverReason::Request => "request",
            HandOverReason::Body => "body",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}
