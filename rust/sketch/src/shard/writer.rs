//! The handle of the thread that counts in a shard.
//!
//! Next: `collector`.

use std::sync::Arc;

use super::flip::EpochFlip;
use super::record::Recorder;
use super::shared::Shard;
use crate::sync::Ordering;

/// The sketches of one thread for one version. Dropping it loses no count: the collector takes those that are left.
#[derive(Debug)]
pub struct ShardWriter {
    pub(super) shard: Arc<Shard>,
}

impl ShardWriter {
    /// Counts through `record`. It neither waits nor locks. `record` should be short, because a collector has to try again if the
    /// writer is busy.
    pub fn record<R>(&mut self, record: impl FnOnce(&mut Recorder<'_>) -> R) -> R {
        /// Leaves even if `record` unwinds, or the writer would be busy for ever.
        struct Inside<'a>(&'a EpochFlip);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.leave();
            }
        }
        let buffer = self.shard.flip.enter();
        let _inside = Inside(&self.shard.flip);
        record(&mut Recorder::new(&self.shard, &self.shard.buffers[buffer]))
    }

    /// Bytes of both buffers.
    pub fn bytes(&self) -> usize {
        self.shard.share.bytes()
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        self.shard.closed.store(true, Ordering::Release);
    }
}
