//! Per-thread sketches of one version: made on a thread's first row, written by that thread alone, emptied by a collector.
//!
//! A [`ShardWriter`] belongs to one thread, a [`ShardOpener`] makes writers, and a [`ShardCollector`] collects their counts. Only
//! opening takes a lock, once per thread and version.
//!
//! `flip` decides which side owns which buffer. `counter` is one counter, `table` the exponential buckets, and `buffer` all counters.
//! `record` is the update path. Next: `flip`.

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
