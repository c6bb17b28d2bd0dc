//! What a summary is made from.

use crate::records::Records;

/// The records of a run, and what they do not say themselves.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// One entry for each request whose outcome is known.
    pub records: &'a Records,
    /// The names of the groups, by [`Records::kind`].
    pub groups: &'a [String],
    /// After how long a request is given up, in nanoseconds: the least that a quantile is which lies among requests
    /// without a good answer.
    pub timeout_ns: u64,
}
