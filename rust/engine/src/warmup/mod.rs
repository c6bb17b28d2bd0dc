//! The inputs that a model is warmed up, compared and probed with.
//!
//! Lives here: `inputs` (the choice), `warmup_file` (the requests of `warmup.json`), `synthetic` (inputs made from the signature), `rows`.
//! May come in: loads, probes. Never known here: models, threads, requests of clients.

mod inputs;
mod rows;
mod synthetic;
mod warmup_file;

pub(crate) use inputs::{WarmupInputs, concerns_inputs};
pub(crate) use rows::RowSet;
pub(crate) use synthetic::varied;
pub(crate) use warmup_file::FILE;
