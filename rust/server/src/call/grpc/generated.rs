//! The generated services of `proto/`; `make proto` makes them anew.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code; proto/ documents it"
)]

pub mod inference {
    include!("generated/inference.rs");
}
pub mod health {
    include!("generated/grpc.health.v1.rs");
}
/// What reflection tells.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
