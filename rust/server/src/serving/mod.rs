//! What is served and what keeps it well, beside the requests.
//!
//! Lives here: the thread that looks after runs, the loads in progress, what is shown of what is served. May come in: start and stop (`gateway`). Never known here: requests in progress,
//! sockets.

pub mod loaders;
pub mod loads;
pub mod orders;
pub mod outcome;
pub mod rehearsal;
pub mod run_watch;
pub mod status;
