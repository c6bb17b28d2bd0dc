//! The calls of the Open Inference Protocol: what each path means, and what answers it.
//!
//! Lives here: the paths over HTTP (`http`, `rest`, `rest_infer`) and gRPC (`grpc`), and what is said about models (`model_info`).
//! May come in: `io_thread`, which gives connections their service. Never known here: sockets.

pub mod feedback;
pub mod grpc;
pub mod http;
pub mod model_info;
pub mod origin;
pub mod path;
pub mod repository;
pub mod rest;
pub mod rest_infer;
pub mod settings;
