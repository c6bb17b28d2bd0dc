//! The generated messages of `proto/`, for everything but inference itself; `make proto` makes them anew.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code; proto/ documents it")]

/// `proto/inference.proto`.
pub mod inference {
    include!("generated/inference.rs");
}

/// `proto/health.proto`.
pub mod health {
    include!("generated/grpc.health.v1.rs");
}
