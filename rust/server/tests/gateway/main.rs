//! Tests of a running gateway, in one program: it is linked once, and tests that wait for a deadline wait side by side.
//! Not here: `allocations`, whose allocator counts for a whole program.
#![allow(missing_docs, reason = "tests say by their names what they show")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../runtime/tests/standin/mod.rs"]
mod standin;

mod attribution;
mod batching;
mod cancellation;
mod crowd;
mod device;
mod feedback;
mod isolation;
mod late;
mod limits;
mod loads;
mod memory;
mod offload;
mod plain;
mod replays;
mod shadows;
mod sketches;
mod streams;
mod trial;
mod withdrawals;
