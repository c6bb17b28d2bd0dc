//! Turns requests into runs.
//!
//! Read in this order: [`place`] (inline or pool), [`model`] (what is run, and the buffers it runs on), [`pool`],
//! [`constant`], [`load`], [`histogram`].

pub mod constant;
pub mod histogram;
pub mod load;
pub mod model;
pub mod place;
pub mod pool;

pub use headgate_runtime as runtime;
pub use histogram::Histogram;
pub use load::{Engine, Source};
pub use model::{Executable, Lease, Model};
pub use place::Place;
pub use pool::{Outcome, Pool, join_until};
