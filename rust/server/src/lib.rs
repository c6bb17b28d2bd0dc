//! The server of the data plane: connections, calls, the phases of a request, work after it, the endpoints that are served, threads.
//!
//! Each folder is a room, and its `mod.rs` says what lives there. An import never goes up. From the top: [`gateway`] (start and stop),
//! [`io_thread`] (the loop of a thread), [`call`], [`request`], [`after`], [`transport`], [`thread`], [`serving`], [`replay`],
//! [`shadow`] and [`capture`], and files without a folder. The hot path in order: `transport::http1`, `call::http`, `request::infer`, `headgate_core::route`,
//! `request::attempt`, the engine's `models/placement`, `headgate_runtime::session`, `after::record`.

pub mod after;
pub mod budget;
pub mod call;
pub mod capture;
pub mod config;
pub mod copied_run;
pub mod event_queue;
pub mod feedback;
pub mod gateway;
pub mod headers;
pub mod inspect;
pub mod io_thread;
pub mod metrics;
pub mod output_bins;
pub mod replay;
pub mod reply_fields;
pub mod request;
pub mod request_context;
pub mod scheduling;
pub mod serving;
pub mod shadow;
pub mod thread;
pub mod transport;
