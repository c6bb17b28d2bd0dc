//! The data plane's server: sockets, HTTP, the phases of a request, taps, metrics, drain.
//!
//! The hot path in order: [`conn`], [`plain`], [`http`], [`infer`], then `headgate_core::route`, `headgate_engine::place` and
//! `headgate_runtime::session`. Around it: [`gateway`] (start and stop), [`publish`] (new states), [`taps`], [`background`].

pub mod after;
pub mod budget;
pub mod call;
pub mod config;
pub mod context;
pub mod gateway;
pub mod headers;
pub mod inspect;
pub mod io_thread;
pub mod metrics;
pub mod request;
pub mod scheduling;
pub mod serving;
pub mod thread;
pub mod transport;
pub mod wake;
