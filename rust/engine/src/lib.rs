//! Turns requests into runs.
//!
//! Read in this order: [`place`] (inline, pool or batched), [`model`] (what is run), [`lease`] (the buffers it runs on), [`job`], [`pool`],
//! [`runner`], [`probe`], [`batcher`], [`batch`], [`constant`], [`resident`], [`memory`], [`load`].

pub mod batch;
mod batch_check;
pub mod batcher;
pub mod constant;
mod crew;
pub mod curve;
mod device;
mod free;
pub mod job;
mod lane;
pub mod lease;
pub mod load;
pub mod memory;
pub mod model;
pub mod notes;
pub mod place;
pub mod pool;
mod pressure;
pub mod probe;
pub mod ran;
pub mod resident;
pub mod runner;
mod seats;
mod shortest;
mod staff;
mod sync;
mod tolerance;
mod warm;
mod warmup;

pub use batch::{Batch, Done, Seat};
pub use batcher::Batcher;
pub use curve::Cost;
pub use device::Devices;
pub use headgate_runtime as runtime;
pub use job::{Outcome, Pending, Waiter};
pub use lease::Lease;
pub use load::{Engine, Source};
pub use memory::{Memory, Need};
pub use model::{Executable, Model, Threads, Warm};
pub use place::Place;
pub use pool::{Desk, Doorbell, Pool, join_until};
pub use probe::{Asked, Finding};
pub use ran::Ran;
pub use resident::State;
pub use runner::STUCK_AFTER;
pub use staff::ThreadCounts;
