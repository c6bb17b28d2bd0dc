//! Streaming statistics for drift: sketches on the edges of a baseline, counted by each thread for itself, merged by
//! addition, and compared with tests that know how many rows they saw. No I/O, no clock, no unsafe.
//!
//! Two paths meet here. Fitting: [`baseline::fit`] chooses [`edges`] and counts the reference. Live: a [`plan`] is compiled
//! per version; threads count through a [`shard`]; a collector adds up to [`live`], keeps it in a [`window`], and a
//! [`report`] holds it against the baseline with the [`distance`]s.
//!
//! Read in this order: [`edges`], [`baseline`], [`lookup`], [`aligned`], [`exponential`], [`moments`], [`categories`],
//! [`special`], [`distance`], [`typed_slice`], [`sampler`], [`rate_control`], [`plan`], [`budget`],
//! [`shard`], [`live`], [`window`], [`report`].
#![forbid(unsafe_code)]

pub mod aligned;
pub mod baseline;
pub mod budget;
pub mod categories;
pub mod distance;
pub mod edges;
pub mod error;
pub mod exponential;
pub mod live;
pub mod lookup;
pub mod moments;
mod packed;
pub mod plan;
pub mod rate_control;
pub mod report;
pub mod sampler;
pub mod shard;
pub mod special;
mod sync;
pub mod typed_slice;
pub mod window;

pub use baseline::{Baseline, Column, Direction, fit};
pub use error::{Error, Result};
