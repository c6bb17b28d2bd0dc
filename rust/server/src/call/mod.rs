//! What a call asks for and what it says beside its tensors: path, headers, deadline, origin; and what answers each path.
//!
//! Lives here: the paths of the Open Inference Protocol over HTTP (`http`, `rest`) and gRPC (`grpc`). May come in: `transport`.
//! Never known here: sockets.

pub mod grpc;
pub mod http;
pub mod model_info;
pub mod origin;
pub mod path;
pub mod repository;
pub mod rest;
pub mod rest_infer;
pub mod settings;
