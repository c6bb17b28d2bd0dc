//! What the writer and the collector of a shard share.
//!
//! Next: `record`.

use std::sync::Arc;

use super::buffer::Buffer;
use super::flip::Flip;
use crate::budget::Share;
use crate::plan::FeaturePlan;
use crate::sync::AtomicBool;

/// What writer and collector share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) plan: Arc<FeaturePlan>,
    pub(super) flip: Flip,
    pub(super) buffers: [Buffer; 2],
    pub(super) share: Share,
    pub(super) closed: AtomicBool,
}
