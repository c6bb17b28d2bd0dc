//! What a call says beside its tensors, and who may make it.
//!
//! Lives here: where a call comes from (`origin`). May come in: what answers a path (`rest`, `grpc`). Never known here: sockets.

pub mod origin;
