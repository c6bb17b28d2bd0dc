//! One run of a request: the buffers that it takes, its way through a queue or a batch, and its result.
//!
//! Lives here: `lease` (the buffers of a run), `single_run`, `batched_run`, `probe_run` (what is queued), `submit` (the way into a queue),
//! `run_result`. May come in: the server. Never known here: loads.

mod batched_run;
mod lease;
mod probe_run;
mod run_result;
mod single_run;
mod submit;

pub use batched_run::{BatchedRun, BatchedRunOutcome};
pub use lease::BufferLease;
pub use run_result::{BatchedResult, RunResult};
pub use single_run::{PendingRun, RunOutcome};
