//! The atomics that shards are made of: the standard library's, or loom's where every interleaving is to be tried.
//!
//! Next: `shard`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
