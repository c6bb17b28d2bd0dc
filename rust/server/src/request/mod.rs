//! A request's way through the versions of its endpoint, whichever wire it came by.
//!
//! Lives here: whose mistake a failure is, who answers instead, and what is done beside the IO threads. May come in: the phases (`infer`). Never known here:
//! sockets, HTTP, how an answer is written.

pub mod attempts;
pub mod attribution;
pub mod beside;
pub mod large;
pub mod large_input;
