//! The state of an IO thread, its mailbox, its free lists, the memory of its requests, work that it offloads, panics.
//!
//! May come in: every other room. Never known here: HTTP.

pub mod catch_panic;
pub mod free_list;
pub mod io;
pub mod mailboxes;
pub mod offload;
pub mod request_memory;
