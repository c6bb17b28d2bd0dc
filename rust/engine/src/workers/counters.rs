//! What the pool's workers and those of devices count together.

use std::sync::atomic::AtomicUsize;

/// The counters that all workers share.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Tasks that wait.
    pub(crate) waiting: AtomicUsize,
    /// Device threads that are alive.
    pub(crate) device_threads: AtomicUsize,
}
