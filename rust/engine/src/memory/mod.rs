//! The memory of models: what is in it, and who gives it up.
//!
//! Lives here: `resident` (what computes, in memory or not), `budget` (who gives way). May come in: models and loads. Never known here:
//! models, requests, queues.

mod budget;
mod resident;

pub use budget::{LoadUrgency, ModelMemory};
pub(crate) use resident::ExecutableSource;
pub use resident::{MemoryPin, Residency, ResidentExecutable};
