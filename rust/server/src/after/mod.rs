//! What happens to a request after its response: counters, sketches, the access log, copies for shadows and the capture.
//!
//! May come in: `request` and `call`; `transport` says when a response is out. Never known here: sockets, JSON.

pub mod access_log;
pub mod capturing;
pub mod copies;
pub mod exposition;
pub mod record;
pub mod sketching;
pub mod thread_state;
