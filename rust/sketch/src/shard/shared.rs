//! The state that the writer and the collector of a shard share.
//!
//! Next: `record`.

use std::sync::Arc;

use super::buffer::CounterBuffer;
use super::flip::EpochFlip;
use crate::budget::BudgetShare;
use crate::plan::FeaturePlan;
use crate::sync::AtomicBool;

/// The sketches of one thread for one version, shared by its writer and its collector.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) plan: Arc<FeaturePlan>,
    pub(super) flip: EpochFlip,
    pub(super) buffers: [CounterBuffer; 2],
    pub(super) share: BudgetShare,
    pub(super) closed: AtomicBool,
}
