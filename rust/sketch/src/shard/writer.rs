//! The handle of the one thread that counts in a shard.
//!
//! Next: `collector`.

use std::sync::Arc;

use super::flip::EpochFlip;
use super::record::Recorder;
use super::shared::Shard;
use crate::sync::Ordering;

/// One thread's sketches of one version. Dropping it loses nothing: the collector takes what is left.
#[derive(Debug)]
pub struct ShardWriter {
    pub(super) shard: Arc<Shard>,
}

impl ShardWriter {
    /// Counts through `record` in one go. Neither waits nor locks; a collector that comes meanwhile comes back later, so
    /// `record` should not take long.
    pub fn record<R>(&mut self, record: impl FnOnce(&mut Recorder<'_>) -> R) -> R {
        /// Leaves also when `record` unwinds, or the collector would find the writer busy for ever.
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
