//! The atomics of shards: the standard library's, or loom's in tests that try every interleaving.
//!
//! Next: `shard`.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
