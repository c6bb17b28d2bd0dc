//! What a thread counts, for others to read while it runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::client_limits::ThreadTimes;
use crate::errors::ErrorTable;
use crate::histogram::Histogram;
use crate::phases::Phases;
use crate::records::Outcome;

/// The counters of a thread. Only the thread itself writes.
#[derive(Default)]
pub(crate) struct ThreadState {
    outcomes: [AtomicU64; 5],
    pub(crate) sent: AtomicU64,
    pub(crate) lateness: Histogram,
    pub(crate) phases: PhaseHistograms,
    pub(crate) errors: Mutex<ErrorTable>,
    pub(crate) compared: AtomicU64,
    pub(crate) differing: AtomicU64,
    pub(crate) differing_example: Mutex<Option<String>>,
    /// What kept the thread from its work, in words.
    pub(crate) interrupted: Mutex<Option<String>>,
    /// The times of the thread at its beginning and at its end.
    pub(crate) times: Mutex<ThreadTimes>,
    /// Whether the thread begins no more requests.
    pub(crate) done_sending: AtomicBool,
    pub(crate) ended: AtomicBool,
}

/// Where the time of sampled requests went.
#[derive(Default)]
pub(crate) struct PhaseHistograms {
    pub(crate) decode: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) run: Histogram,
    pub(crate) reply: Histogram,
    pub(crate) total: Histogram,
    /// The client's service time without the server's total.
    pub(crate) outside: Histogram,
}

impl PhaseHistograms {
    pub(crate) fn record(&self, phases: Phases, service_ns: u64) {
        self.decode.record(phases.decode_ns);
        self.queue.record(phases.queue_ns);
        self.run.record(phases.run_ns);
        self.reply.record(phases.reply_ns);
        self.total.record(phases.total_ns);
        self.outside.record(service_ns.saturating_sub(phases.total_ns));
    }
}

/// Adds to a counter that only this thread writes.
pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed) + number, Relaxed);
}

impl ThreadState {
    pub(crate) fn count(&self, outcome: Outcome) {
        add(&self.outcomes[outcome as usize], 1);
    }

    /// Counts a request as failed that was counted as good.
    pub(crate) fn count_as_failed(&self) {
        let good = &self.outcomes[Outcome::Good as usize];
        good.store(good.load(Relaxed).saturating_sub(1), Relaxed);
        self.count(Outcome::Failed);
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }

    pub(crate) fn count_error(&self, what: &str, example: &[u8]) {
        // A panic while the table is locked leaves it whole: counting never panics half way.
        self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).count(what, example);
    }

    /// Says why the thread stopped before its time; the first reason stays.
    pub(crate) fn interrupt(&self, why: impl Into<String>) {
        let mut interrupted = self.interrupted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        interrupted.get_or_insert(why.into());
    }
}
