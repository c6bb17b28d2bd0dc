//! Per-thread sketches of one version: made on a thread's first row, written by that thread alone, emptied by a collector.
//!
//! A [`Writer`] belongs to one thread, an [`Opener`] makes writers, a [`Collector`] gathers what they counted. Only opening takes a
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

pub use collector::{Collected, Collector, Opener};
pub use record::{Recorder, Taken, TensorRows};
pub use writer::Writer;

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]
mod tests;
