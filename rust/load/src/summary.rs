//! What the records of a run say: quantiles with intervals, verdicts on objectives, warm-up, steadiness.
//!
//! A request without a good answer counts as slower than any answer. Not here: how requests were counted while the run
//! lasted, and what limited the client. Read in this order: `question`, `window`, `distribution`, `warm_up`, `in_flight`,
//! `slices`; the statistics are in `headgate_core::stats`.

mod distribution;
mod in_flight;
mod merged;
mod question;
mod slices;
#[cfg(test)]
mod tests;
mod warm_up;
mod window;

pub use merged::merged;
pub use question::{LatencyObjective, Question};
pub use slices::slices;
pub use window::summarise;

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
