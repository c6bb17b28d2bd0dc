//! What is served and what keeps it well, beside the requests.
//!
//! Lives here: new states on their way to the snapshot (`publish`), versions, rates and breakers, loads in progress, memory, drift,
//! the threads that look after runs. May come in: start and stop (`gateway`). Never known here: requests in progress, sockets.

pub mod background;
pub mod drift;
pub mod fetch;
pub mod fit;
pub mod guards;
pub mod load_versions;
pub mod loaders;
pub mod loads;
pub mod orders;
pub mod outcome;
pub mod probes;
pub mod publish;
pub mod rehearsal;
pub mod residency;
pub mod run_watch;
pub mod shared;
pub mod sketch_cost;
pub mod status;
pub mod track_record;
pub mod version;
pub mod version_gauges;
pub mod watchdog;
