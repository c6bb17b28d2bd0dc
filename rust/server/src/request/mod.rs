//! The phases of an inference request, from its bytes to the bytes of its response.
//!
//! Lives here: the list of phases (`infer`), the phases of one version (`attempt`), tensors in and out, fallback to other versions,
//! the attribution of failures, large requests and responses. May come in: `call`. Never known here: which wire the request came by.

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
mod routing_fields;
pub mod tensors;
