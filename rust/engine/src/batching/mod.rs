//! Requests that are run together: which rows belong to which request, how large a batch gets, and its run.
//!
//! Lives here: `cost_curve` (what a run of n rows costs), `wait_policy` (how large a batch gets and how long it waits; pure),
//! `row_slots` (when rows may be written and read; checked with loom),
//! `batcher` (a version's sizes, delays and slabs), `batch` (a batch's memory), `batch_run`, `row_range` (a request's side),
//! `open_batches`, `batch_kind`. May come in: models, and the runs of requests. Never known here: models, the server's requests.

mod batch;
mod batch_kind;
mod batch_run;
mod batcher;
mod cost_curve;
mod open_batches;
mod row_range;
mod row_slots;
mod wait_policy;

pub use batch::{Batch, BatchWaker};
pub use batcher::{BatchSizeStats, BatchSummary, Batcher};
pub use cost_curve::RunCost;
pub(crate) use cost_curve::{ArrivalGaps, CostCurve};
pub(crate) use open_batches::OpenBatches;
pub(crate) use row_range::{BatchRows, RowRange, RowRangeOutcome};
pub(crate) use row_slots::RowSlots;
pub(crate) use wait_policy::{Expectation, padded_rows, wait_until};
