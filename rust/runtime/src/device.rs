//! Runs on a device.
//!
//! Read in this order: `driver` (what a driver has to do), `slab` (memory of a device), `io` (what the runtime needs for a bound
//! run), `session` (one session with its streams and slabs), `cuda` (NVIDIA's driver), `provider` (the runtime's part for it),
//! `nvml` (the usage of a device).
#![allow(unsafe_code, reason = "device memory has no safe wrapper")]

pub mod cuda;
pub(crate) mod driver;
mod io;
pub mod nvml;
pub mod provider;
pub mod session;
mod slab;

pub use driver::{Driver, DriverHandle};
pub use ort_sys::OrtSessionOptions;
pub use session::{DeviceSession, InFlightRun};
