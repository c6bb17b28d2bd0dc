//! The memory of models: what is in it, and what leaves it for others.
//!
//! Lives here: `resident` (an executable, in memory or not), `budget` (which ones leave). May come in: models and loads. Never known here:
//! models, requests, queues.

mod budget;
mod resident;

pub use budget::{LoadUrgency, ModelMemory};
pub(crate) use resident::ExecutableSource;
pub use resident::{MemoryPin, Residency, ResidentExecutable};
