//! What computes: the contract of an executable, and its kinds.
//!
//! Lives here: `executable` (the contract, and ONNX Runtime's session), `constant`, `device` (sessions on a GPU), `elements`. May come in:
//! everything that runs a model. Never known here: requests, queues, threads.

mod constant;
mod device;
mod elements;
mod executable;

pub use constant::Constant;
pub(crate) use device::DeviceSessions;
pub use device::Devices;
pub(crate) use elements::ElementBuffer;
pub use executable::Executable;
pub(crate) use executable::ExecutableHandle;
