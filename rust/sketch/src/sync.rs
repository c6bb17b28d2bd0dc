//! The atomics that shards are made of: the standard library's, or loom's where every interleaving is to be tried.
//!
//! Next: `shard`.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
