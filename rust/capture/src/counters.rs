//! The counters of one endpoint's capture, which the writer writes and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The counters of one endpoint's capture.
#[derive(Debug, Default)]
pub struct CaptureCounters {
    /// Rows that were written.
    pub rows: AtomicU64,
    /// Bytes that were written.
    pub bytes: AtomicU64,
    /// Files that were closed.
    pub files: AtomicU64,
    /// Files that were deleted, because of their age or of the space.
    pub deleted: AtomicU64,
    /// Errors of the file system.
    pub errors: AtomicU64,
    /// Bytes on the disk.
    pub disk_bytes: AtomicU64,
    /// Files on the disk.
    pub disk_files: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    failure: Mutex<Option<CaptureFailure>>,
}

/// Why capture is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFailure {
    /// What went wrong.
    pub reason: String,
    /// Since when.
    pub since: SystemTime,
}

/// Why a request that was drawn is not in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Too many requests, or too many bytes, waited for the writer.
    QueueFull,
    /// The request is larger than one may be.
    TooLarge,
    /// Capture was stopped after an error.
    Stopped,
    /// Writing failed.
    Failed,
    /// Its tensors could not be read.
    Unreadable,
    /// It waited too long for the writer.
    Late,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [DropReason; 6] = [
        DropReason::QueueFull,
        DropReason::TooLarge,
        DropReason::Stopped,
        DropReason::Failed,
        DropReason::Unreadable,
        DropReason::Late,
    ];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::TooLarge => "too_large",
            DropReason::Stopped => "stopped",
            DropReason::Failed => "failed",
            DropReason::Unreadable => "unreadable",
            DropReason::Late => "late",
        }
    }
}

impl CaptureCounters {
    /// Counts dropped requests.
    pub fn drop_rows(&self, reason: DropReason, rows: u64) {
        self.drops[reason as usize].fetch_add(rows, Relaxed);
    }

    /// The dropped requests of a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// Why capture is stopped; `None` if it is not.
    pub fn failure(&self) -> Option<CaptureFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records an error. The time of the first one in a row stays.
    pub(crate) fn fail(&self, reason: String, at: SystemTime) {
        self.errors.fetch_add(1, Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failure.as_ref().map_or(at, |failure| failure.since);
        *failure = Some(CaptureFailure { reason, since });
    }

    /// Records that a write succeeded.
    pub(crate) fn succeed(&self) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
