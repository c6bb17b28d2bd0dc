//! The reference distribution of an endpoint: for each feature its edges, and the counts and sums of the reference rows on these
//! edges. A baseline is fitted once, identified by the SHA-256 of its bytes, and compared with live windows.
//!
//! `fit` makes a baseline from columns of numbers, `codec` writes and reads it. Not here: live counts (`live`), distances
//! (`distance`). Next: `types`.

mod codec;
mod fit;
mod types;

pub use codec::{FORMAT, MAX_BYTES, MAX_FEATURES};
pub use fit::fit;
pub use types::{Baseline, Column, Direction, FeatureBaseline};
