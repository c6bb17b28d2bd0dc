//! What the records of a run say: quantiles with intervals, verdicts on objectives, warm-up, steadiness.
//!
//! A request without a good answer counts as slower than any answer. Not here: how requests were counted while the run
//! lasted, and what limited the client. Read in this order: `question`, `window`, `distribution`, `warm_up`, `in_flight`,
//! `slices`; the statistics are in `headgate_core::stats`.

mod distribution;
mod in_flight;
mod measured;
mod merged;
mod question;
mod slices;
#[cfg(test)]
mod tests;
mod warm_up;
mod window;

pub use measured::Measured;
pub use merged::merged;
pub use question::{LatencyObjective, Question};
pub use slices::slices;
pub use window::summarise;
