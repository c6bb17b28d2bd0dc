//! Turns requests into runs.
//!
//! From the top to the bottom: `load` (from a file to a model), `runs` (one run), `models` (a loaded version), `warmup` (inputs for first runs),
//! `memory` (what is in memory), `batching`, `workers` (the threads), `queue`, `compute` (what computes). An import never goes up.
//! Read first: `runs/submit`.

mod batching;
mod compute;
mod load;
mod memory;
mod models;
mod queue;
mod runs;
mod shapes;
mod sync;
mod time;
mod warmup;
mod workers;

pub use batching::{Batch, Batcher, Batches, Cost, Doorbell, Sizes};
pub use compute::{Constant, Devices, Executable};
pub use headgate_runtime as runtime;
pub use load::{Engine, Source};
pub use memory::{Memory, Need, Pin, Resident, State};
pub use models::{
    Asked, Decided, Finding, MIN_RUNS, Model, Notes, Place, Placement, Probes, STALL_NS, Threads, Warm,
};
pub use runs::{Done, Lease, Outcome, Pending, Ran, Seat, Together};
pub use time::join_until;
pub use workers::{Pool, Runs, STUCK_AFTER, ThreadCounts, Waiter, WorkerCounters};
