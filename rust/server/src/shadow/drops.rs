//! Why a copy that was drawn was not compared.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Map, Value};

/// Why a copy was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// As many copies wait as may.
    QueueFull,
    /// The copies that wait hold as much memory as they may.
    Bytes,
    /// Its deadline passed while it waited.
    Late,
    /// The CPU budget of shadows was used up while it waited, or when it came.
    CpuBudget,
    /// The version is out of memory; it is not fetched for a shadow.
    NotReady,
    /// The version does not take the request's inputs.
    Incompatible,
    /// The shadow was switched off, or is no longer in the document.
    SwitchedOff,
    /// The gateway is stopping.
    Shutdown,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [DropReason; 8] = [
        DropReason::QueueFull,
        DropReason::Bytes,
        DropReason::Late,
        DropReason::CpuBudget,
        DropReason::NotReady,
        DropReason::Incompatible,
        DropReason::SwitchedOff,
        DropReason::Shutdown,
    ];

    /// The word in metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::Bytes => "bytes",
            DropReason::Late => "late",
            DropReason::CpuBudget => "cpu_budget",
            DropReason::NotReady => "not_ready",
            DropReason::Incompatible => "incompatible",
            DropReason::SwitchedOff => "switched_off",
            DropReason::Shutdown => "shutdown",
        }
    }
}

/// How many copies were dropped, by reason. Any thread counts.
#[derive(Debug, Default)]
pub struct DropCounts([AtomicU64; DropReason::ALL.len()]);

impl DropCounts {
    /// Counts copies.
    pub fn add(&self, reason: DropReason, copies: u64) {
        self.0[reason as usize].fetch_add(copies, Relaxed);
    }

    /// The copies that were dropped for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// The copies that were dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The counts by the word of their reason.
    pub fn to_json(&self) -> Value {
        let counts =
            DropReason::ALL.iter().map(|&reason| (reason.as_str().to_owned(), self.get(reason).into()));
        Value::Object(counts.collect::<Map<_, _>>())
    }
}
