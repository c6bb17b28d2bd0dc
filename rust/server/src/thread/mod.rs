//! An IO thread: its state and its loop, its memory for the next request, how threads share cores, panics.
//!
//! May come in: every other room. Never known here: HTTP.

pub mod catch_panic;
pub mod free_list;
pub mod io;
pub mod mailboxes;
pub mod offload;
pub mod request_memory;
