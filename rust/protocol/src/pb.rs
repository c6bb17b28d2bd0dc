//! The generated messages of `proto/`, for all calls but inference. `make proto` generates them.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code; proto/ documents it")]

/// `proto/inference.proto`.
pub mod inference {
    include!("generated/inference.rs");
}

/// `proto/health.proto`.
pub mod health {
    include!("generated/grpc.health.v1.rs");
}
