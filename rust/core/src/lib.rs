//! The domain of Headgate, pure: no I/O, no clock, no threads, no unsafe.
//!
//! Read in this order: [`error`], [`id`], [`tensor`], [`spec`], [`limits`], [`snapshot`], [`route`],
//! [`slots`], [`rate`], [`breaker`].
#![forbid(unsafe_code)]

pub mod breaker;
pub mod error;
pub mod id;
pub mod limits;
pub mod rate;
pub mod route;
pub mod slots;
pub mod snapshot;
pub mod spec;
pub mod tensor;
