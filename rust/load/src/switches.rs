//! What a run tells its threads, and what they tell it.

use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, PoisonError};

/// Between the start and the first due time: every thread is up by then.
pub(crate) const LEAD_NS: u64 = 20_000_000;
/// What a run tells its threads.
#[derive(Default)]
pub(crate) struct Switches {
    /// Nothing more is sent.
    pub(crate) stop: AtomicBool,
    /// Nothing is awaited.
    pub(crate) end_now: AtomicBool,
    /// The reading of the clock at the end of each thread that has ended.
    pub(crate) ended: Mutex<Vec<u64>>,
    pub(crate) one_ended: Condvar,
}

impl Switches {
    /// Notes that a thread has ended at a reading of the clock.
    pub(crate) fn note_ended(&self, at_ns: u64) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(at_ns);
        self.one_ended.notify_all();
    }
}
