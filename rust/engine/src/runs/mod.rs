//! One run of a request: the buffers that it takes, its way through a queue or a batch, and its result.
//!
//! Lives here: `lease` (the buffers of a run), `single_run`, `batched_run`, `probe_run` (what is queued), `submit` (the way into a queue),
//! `run_result`, `copied_result` (rows of a batch that left it), `run_threads` (runs that no request waits for). May come in: the server. Never known here: loads.

mod batched_run;
mod copied_result;
mod lease;
mod probe_run;
mod run_result;
mod run_threads;
mod single_run;
mod submit;

pub use batched_run::{BatchedRun, BatchedRunOutcome};
pub use copied_result::CopiedResult;
pub use lease::BufferLease;
pub use run_result::{BatchedResult, RunResult};
pub use run_threads::{RunThread, RunThreads, SeparateRun};
pub use single_run::{PendingRun, RunOutcome};
