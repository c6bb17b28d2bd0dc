//! An inference request's way from bytes to a response: admit, decode, run, write; and through the versions of its endpoint.
//!
//! Lives here: the phases (`infer`), tensors in and out, whose mistake a failure is, who answers instead, what is done beside the
//! IO threads. May come in: `call`. Never known here: which wire the request came by.

pub mod attempt;
pub mod attempts;
pub mod attribution;
pub mod deadline;
pub mod fallback;
pub mod infer;
pub mod inference;
pub mod large_request;
pub mod large_response;
pub mod outputs;
pub mod tensors;
