//! Why a connection of HTTP/1.1 was handed to hyper, which costs its client more for each request from then on.

use crate::metrics::by_reason::Labelled;

/// The reason for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// What came is no whole head, or one that is too long for the fast reader.
    Head,
    /// The request needs more than the fast reader has: chunks, an escape in its path, a long body, many fields.
    Request,
    /// The body did not come with its head.
    Body,
}

impl Labelled for HandOver {
    const ALL: &[HandOver] = &[HandOver::Head, HandOver::Request, HandOver::Body];

    fn name(self) -> &'static str {
        match self {
            HandOver::Head => "head",
            HandOver::Request => "request",
            HandOver::Body => "body",
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}
