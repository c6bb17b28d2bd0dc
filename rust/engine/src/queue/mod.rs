//! The queue of a version: what waits, in which order it runs, and what is shed.
//!
//! Lives here: `run_queue`, `shedding`. May come in: everything that queues work. Never known here: what the work is, and which thread
//! runs it.

mod run_queue;
mod shedding;

pub(crate) use run_queue::{Queued, RunQueue, RunTimes};
