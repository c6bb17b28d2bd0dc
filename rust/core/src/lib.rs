//! The domain of Headgate, pure: no I/O, no clock, no threads, no unsafe.
//!
//! Read in this order: [`error`], [`id`], [`tensor`], [`spec`], [`limits`], `endpoint_state`, [`snapshot`],
//! [`rules`], [`shadow`], [`comparison`], [`route`], [`explain`], [`slots`], [`rate`], [`breaker`], [`trial`], [`gates`]; [`histogram`],
//! [`fine_histogram`], [`name_map`], [`reuse`] and [`stats`] are for all crates.
#![forbid(unsafe_code)]

pub mod breaker;
pub mod comparison;
mod endpoint_state;
pub mod error;
pub mod explain;
pub mod feedback;
pub mod fine_histogram;
pub mod gates;
pub mod histogram;
pub mod id;
pub mod limits;
pub mod name_map;
pub mod paired_outputs;
pub mod rate;
pub mod reuse;
pub mod route;
pub mod rules;
pub mod shadow;
pub mod slots;
pub mod snapshot;
pub mod spec;
pub mod stats;
pub mod tensor;
pub mod trial;
