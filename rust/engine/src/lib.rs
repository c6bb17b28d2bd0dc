//! Turns requests into runs.
//!
//! Each folder is a room, and its `mod.rs` says what lives there; an import never goes up. From the top: `load` (from a file to a model),
//! `runs` (one run of a request), `models` (a loaded version), `warmup` (inputs of first runs), `memory` (what is in memory), `batching`,
//! `workers` (the threads), `queue`, `compute` (what computes). Read first: `runs/submit`, `models/model`.

mod batching;
mod compute;
mod load;
mod memory;
mod models;
mod queue;
mod runs;
mod shapes;
mod simulation;
mod sync;
mod time;
mod warmup;
mod workers;

pub use batching::{Batch, BatchSizeStats, BatchSummary, BatchWaker, Batcher, RunCost};
pub use compute::{Constant, Devices, Executable};
pub use headgate_runtime as runtime;
pub use load::{Engine, Source};
pub use memory::{LoadUrgency, MemoryPin, ModelMemory, Residency, ResidentExecutable};
pub use models::{
    LoadNotes, LoadedModel, MIN_RUNS, Model, ModelProbes, ModelThreads, Placement, PlacementDecision,
    PlacementPolicy, ProbeAnswer, ProbeOutcome, STALL_NS,
};
pub use runs::{
    BatchedResult, BatchedRun, BatchedRunOutcome, BufferLease, CopiedResult, PendingRun, RunOutcome,
    RunResult, RunThread, RunThreads, SeparateRun,
};
pub use simulation::{Arrivals, BatchSimulation, CostLine, SimulatedSetting, SimulatedTimes};
pub use time::{Instant, join_until};
pub use workers::{RunCounters, STUCK_AFTER, ThreadCounts, Waiter, WorkerCounters, WorkerPool};
