//! The threads that run tasks: those of the pool, and those of models on a device.
//!
//! Lives here: `task` (what they run), `run_slot` (the run of a thread, and how it is cancelled), `worker_set` (how many threads the pool
//! has), `worker_pool`, `device_workers`. May come in: what queues tasks. Never known here: models, batches, requests.

mod counters;
mod device_workers;
mod run_slot;
mod task;
mod worker_pool;
mod worker_set;

pub use counters::WorkerCounters;
pub(crate) use device_workers::{DeviceWorkers, IN_THE_AIR};
pub(crate) use run_slot::{On, Runner};
pub use run_slot::{Runs, STUCK_AFTER};
pub use task::Waiter;
pub(crate) use task::{Begun, Task, TaskQueue, late};
pub use worker_pool::Pool;
pub use worker_set::ThreadCounts;
