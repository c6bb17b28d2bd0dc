//! An IO thread, beside its loop (`io`).
//!
//! Lives here: which of a thread's connections make room for new ones. May come in: the loop. Never known here: HTTP.

pub mod closed;
pub mod crowd;
