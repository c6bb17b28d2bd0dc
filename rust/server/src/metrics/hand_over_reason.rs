//! The reasons for which a connection of HTTP/1.1 is handed to hyper. From then on each of its requests costs more.

use crate::metrics::reason_counters::ReasonLabel;

/// The reason for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverReason {
    /// The first bytes are no whole head, or the head is too long for the fast reader.
    Head,
    /// The fast reader cannot read the request: chunks, an escape in the path, a long body, many fields.
    Request,
    /// The body did not arrive together with the head.
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
