//! What happens to a request after its answer. Never knows sockets or JSON.

pub mod exposition;
pub mod sketch_cost;
