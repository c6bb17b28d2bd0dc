//! Per-thread sketches of one version: made on a thread's first row, written by that thread alone, emptied by a collector.
//!
//! A [`ShardWriter`] belongs to one thread, an [`ShardOpener`] makes writers, a [`ShardCollector`] gathers what they counted. Only opening takes a
//! lock, once per thread and version.
//!
//! `flip` says who may touch which buffer, `counter` holds single counters, `table` the exponential buckets, `buffer` all counters
//! of a shard, `record` moves them. Next: `flip`.

mod buffer;
mod collector;
mod counter;
mod flip;
mod record;
mod shared;
mod table;
mod writer;

pub use collector::{CollectionResult, ShardCollector, ShardOpener};
pub use record::{Recorder, SketchedRows, TensorRows};
pub use writer::ShardWriter;

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]
mod tests;
