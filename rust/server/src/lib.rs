//! The data plane's server: sockets, HTTP, the phases of a request, taps, metrics, drain.
//!
//! The hot path in order: [`conn`], [`plain`], [`http`], [`infer`], then `headgate_core::route`, `headgate_engine::place` and
//! `headgate_runtime::session`. Around it: [`gateway`] (start and stop), [`publish`] (new states), [`taps`], [`background`].

pub mod accept;
pub mod access_log;
pub mod after;
pub mod background;
pub mod body;
pub mod budget;
pub mod call;
pub mod coding;
pub mod config;
pub mod conn;
pub mod context;
pub mod counted;
pub mod deadline;
pub mod drift;
pub mod facts;
pub mod fetch;
pub mod fit;
pub mod framing;
pub mod gateway;
pub mod grpc;
pub mod guards;
pub mod headers;
pub mod http;
pub mod infer;
pub mod inspect;
pub mod io;
pub mod metrics;
pub mod outputs;
pub mod panic;
pub mod path;
pub mod plain;
pub mod publish;
pub mod reply;
pub mod request;
pub mod residency;
pub mod rest;
pub mod serving;
pub mod settings;
pub mod sketching;
pub mod stock;
pub mod taps;
pub mod tensors;
pub mod thread;
pub mod threads;
pub mod version;
pub mod wake;
pub mod watchdog;
pub mod wire;
