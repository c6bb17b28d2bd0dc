//! An IO thread: its state and its loop, its memory for the next request, how threads share cores, panics.
//!
//! May come in: every other room. Never known here: HTTP.

pub mod beside;
pub mod counted;
pub mod io;
pub mod mailboxes;
pub mod panic;
pub mod stock;
