//! The load generator.

pub mod records;
