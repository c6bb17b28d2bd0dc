//! Loading: from a file to a model whose first request is not its first run.
//!
//! Lives here: `engine` (the models that are loaded), `warm_up` (the first runs, and what they show), `timed_run`, `batch_check` and `tolerance`
//! (whether rows may be batched). May come in: the server's loads. Never known here: requests of clients.

mod batch_check;
mod engine;
mod timed_run;
mod tolerance;
mod warm_up;

pub use engine::{Engine, Source};
