//! A version's queue and batches in virtual time: how long requests would take under settings that nobody has run yet.
//!
//! Lives here: `question` (what is asked, and its checks), `run` (from the first request to the last), `arrivals` (when requests come), `server` (events in virtual time), `times` (what
//! they add up to). May come in: the boundary to Python. Never known here: models, threads, requests.
//!
//! What decides is the code that serves requests: the run queue with its shedding (`queue`), the slots of a batch, its size, its wait and
//! what a run is expected to cost (`batching`). Only the clock and the runs are simulated. So a change of a policy changes what it predicts.
//!
//! Not simulated: hops between threads, the memory of slabs, other versions.

mod arrivals;
mod question;
mod run;
mod server;
mod times;

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests;

pub use question::{Arrivals, BatchSimulation, CostLine, SimulatedSetting};
pub use times::SimulatedTimes;
