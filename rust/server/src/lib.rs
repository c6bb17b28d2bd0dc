//! The data plane's server: connections, calls, the phases of a request, what happens after it, what is served, its threads.
//!
//! Each folder is a room, and its `mod.rs` says what lives there; an import never goes up. From the top: [`gateway`] (start and
//! stop), [`io_thread`] (a thread's loop), [`call`], [`request`], [`after`], [`transport`], [`thread`], [`serving`], and what stands
//! alone. The hot path in order: `transport::http1`, `call::http`, `request::infer`, then `headgate_core::route`,
//! the engine's `models/placement` and `headgate_runtime::session`.

pub mod after;
pub mod budget;
pub mod call;
pub mod config;
pub mod event_queue;
pub mod gateway;
pub mod headers;
pub mod inspect;
pub mod io_thread;
pub mod metrics;
pub mod request;
pub mod request_context;
pub mod scheduling;
pub mod serving;
pub mod thread;
pub mod transport;
