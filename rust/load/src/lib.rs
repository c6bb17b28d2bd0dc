//! The load generator: it sends requests when they are due, whatever the answers take, and writes down what became of each.
//!
//! The crate sends and counts. What is sent, and what the numbers mean for a model, is decided by its callers. Read in this order:
//! [`plan`], `schedule`, `worker`, `desk`, `http1`, `grpc`, [`records`], [`summary`], [`run`].

mod checks;
mod client_limits;
mod desk;
mod echo;
mod encoding;
mod errors;
mod export;
mod grpc;
mod histogram;
mod http1;
mod ledger;
mod memory;
mod phases;
pub mod plan;
mod poller;
mod prepared;
pub mod records;
mod reply;
mod report;
pub mod run;
mod schedule;
pub mod selftest;
mod sockets;
mod source;
pub mod summary;
mod switches;
mod thread_state;
mod worker;

pub use encoding::encode_grpc_infer;
pub use run::LoadRun;
