//! A loaded version: what computes, where it runs, and what its runs have shown.
//!
//! Lives here: `model`, `loaded_model` (a model that is held in memory), `placement` (inline, pool or batched), `shortest_run`, `probes`,
//! `load_notes`, `buffer_pool` with `remote_free_list`. May come in: runs, loads, the server. Never known here: the run of a request.

mod buffer_pool;
mod load_notes;
mod loaded_model;
mod model;
mod placement;
mod probes;
mod remote_free_list;
mod shortest_run;

pub use load_notes::LoadNotes;
pub use loaded_model::LoadedModel;
pub use model::{Model, ModelThreads};
pub use placement::{MIN_RUNS, Placement, PlacementDecision, PlacementPolicy, STALL_NS};
pub(crate) use probes::MAX_RUN as MAX_PROBE_RUN;
pub use probes::{ModelProbes, ProbeAnswer, ProbeOutcome};
