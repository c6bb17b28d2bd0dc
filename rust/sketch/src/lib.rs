//! Streaming statistics for drift. Each thread counts values on the edges of a baseline, the counts are merged by addition, and
//! tests that know the number of rows compare them with the baseline. The crate has no I/O, no clock and no unsafe code.
//!
//! There are two paths. Fitting: [`baseline::fit`] chooses [`edges`] and counts the reference rows. Live: a [`plan`] is compiled
//! for each version, and threads count through a [`shard`]. A collector adds the counts to [`live`], which a [`window`] holds.
//! A [`report`] compares them with the baseline by [`distance`]s.
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
