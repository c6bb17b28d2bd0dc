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
    pub(super) core: Arc<Shard>,
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
        let buffer = self.core.flip.enter();
        let _inside = Inside(&self.core.flip);
        record(&mut Recorder::new(&self.core, &self.core.buffers[buffer]))
    }

    /// Bytes of both buffers.
    pub fn bytes(&self) -> usize {
        self.core.share.bytes()
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        self.core.closed.store(true, Ordering::Release);
    }
}
