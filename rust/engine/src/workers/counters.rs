//! What the workers of the pool and those of devices count together.

use std::sync::atomic::AtomicUsize;

/// What all workers count together.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Tasks that wait.
    pub(crate) waiting: AtomicUsize,
    /// Threads of devices that live.
    pub(crate) device_threads: AtomicUsize,
}
