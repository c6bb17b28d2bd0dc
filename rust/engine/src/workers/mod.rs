//! The threads that run tasks: those of the pool, and those of models on a device.
//!
//! Lives here: `task` (what a worker runs), `run_slot` (a worker's run, and how it is cancelled), `worker_set` (how many threads a set
//! has), `worker_pool`, `device_workers`, `counters`. May come in: what queues tasks. Never known here: models, batches, requests.

mod counters;
mod device_workers;
mod run_slot;
mod task;
mod worker_pool;
mod worker_set;

pub use counters::WorkerCounters;
pub(crate) use device_workers::{DeviceWorkers, MAX_IN_FLIGHT};
pub(crate) use run_slot::{Executor, RunSlot};
pub use run_slot::{RunCounters, STUCK_AFTER};
pub use task::Waiter;
pub(crate) use task::{DeviceTimes, Task, TaskQueue, late_error};
pub use worker_pool::WorkerPool;
pub use worker_set::ThreadCounts;
pub(crate) use worker_set::WorkerSet;
