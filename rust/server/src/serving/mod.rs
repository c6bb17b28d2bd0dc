//! The endpoints and versions that are served, and the threads that maintain them.
//!
//! Lives here: updates of endpoints up to the snapshot (`publisher`), versions, rate limiters and breakers, trials, loads in progress,
//! memory, drift, the threads that monitor runs. May come in: start and stop (`gateway`). Never known here: requests in progress, sockets.

pub mod background;
pub mod compatibility;
pub mod dry_run;
pub mod feedback;
pub mod fetcher;
pub mod limit_registry;
pub mod load_tracker;
pub mod load_versions;
pub mod loader_pool;
mod named_tensors;
pub mod probes;
pub mod publisher;
pub mod receipt_saver;
pub mod recent_success;
pub mod residency;
pub mod run_monitor;
pub mod shared;
pub mod sketch_cost;
pub mod sketch_registry;
pub mod status;
pub mod trial;
pub mod trial_families;
pub mod trial_registry;
pub mod update_outcome;
pub mod updates;
pub mod version;
pub mod version_families;
pub mod watchdog;
pub mod watched_outputs;
