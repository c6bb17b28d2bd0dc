//! What a run leaves for the response and for statistics: its inputs and outputs, in buffers of its own or in a batch.
//!
//! Next: back to the server's `infer`.

use std::sync::Arc;

use headgate_core::error::Result;
use headgate_runtime::{StringTensor, TensorView};

use super::lease::BufferLease;
use crate::batching::BatchRows;
use crate::models::Model;

/// Inputs and outputs of a finished run.
pub enum RunResult {
    /// In buffers of its own.
    Single(BufferLease),
    /// Among the rows of a batch.
    Batched(BatchedResult),
}

/// The inputs and outputs of a request after the run of its batch.
pub struct BatchedResult {
    rows: BatchRows,
    model: Arc<Model>,
}

impl BatchedResult {
    /// The rows of a request to that model.
    pub(super) fn new(rows: BatchRows, model: Arc<Model>) -> BatchedResult {
        BatchedResult { rows, model }
    }
}

impl RunResult {
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        match self {
            RunResult::Single(lease) => lease.model(),
            RunResult::Batched(batched) => &batched.model,
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            RunResult::Single(lease) => lease.binding().rows(),
            RunResult::Batched(batched) => batched.rows.rows(),
        }
    }

    /// An input, as it was run.
    ///
    /// # Errors
    /// `internal` if it cannot be viewed.
    pub fn input(&self, index: usize) -> Result<TensorView<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().input(index).view(),
            RunResult::Batched(batched) => batched.rows.input(index),
        }
    }

    /// An output.
    ///
    /// # Errors
    /// As [`RunResult::input`].
    pub fn output(&self, index: usize) -> Result<TensorView<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().output(index),
            RunResult::Batched(batched) => batched.rows.output(index),
        }
    }

    /// The strings of an input, not copied; `None` for another type.
    pub fn input_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().input(index).strings(),
            // Strings are not batched.
            RunResult::Batched(_) => None,
        }
    }

    /// The strings of an output, not copied; `None` for another type.
    pub fn output_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().output_strings(index),
            RunResult::Batched(_) => None,
        }
    }
}
