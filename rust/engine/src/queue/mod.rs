//! A version's queue: what waits, in which order it runs, and what is shed.
//!
//! Lives here: `run_queue`, `shedding`. May come in: everything that queues. Never known here: what waits, and which thread runs it.

mod run_queue;
mod shedding;

pub(crate) use run_queue::{Lane, RunTimes, Waits};
