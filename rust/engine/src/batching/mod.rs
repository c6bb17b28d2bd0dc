//! Requests that are run together: which rows belong to whom, how large a batch gets, and the run itself.
//!
//! Lives here: `cost_curve` (what a run of n rows costs), `row_slots` (who has which rows; model-checked), `batcher` (a version's sizes,
//! delays, slabs), `batch` (its memory), `batch_run`, `row_range` (a request's side), `open_batches`. May come in: models, and what runs for a request. Never known
//! here: models, the server's requests.

mod batch;
mod batch_kind;
mod batch_run;
mod batcher;
mod cost_curve;
mod open_batches;
mod row_range;
mod row_slots;

pub use batch::{Batch, Doorbell};
pub use batcher::{Batcher, Batches, Sizes};
pub use cost_curve::Cost;
pub(crate) use open_batches::OpenBatches;
pub(crate) use row_range::{BatchRows, Finished, RowRange};
