//! Runs on a device: what a driver has to do for them, and memory that the device reads at full speed.
//!
//! Read in this order: [`Driver`], `session` (one session with its stream and slabs), `io` (what the runtime wants for a bound run), `cuda` (NVIDIA's driver), `provider` (the runtime's part for it), `nvml` (how busy
//! a device is).
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
