//! What a run leaves for the answer and the taps: inputs and outputs, wherever they lie.
//!
//! Next: back to the server's `infer`.

use std::sync::Arc;

use headgate_core::error::Result;
use headgate_runtime::{StringTensor, TensorView};

use super::lease::Lease;
use crate::batching::BatchRows;
use crate::models::Model;

/// Inputs and outputs of a run that is over.
pub enum Ran {
    /// In buffers of its own.
    Alone(Lease),
    /// Among the rows of a batch.
    Together(Together),
}

/// A request's inputs and outputs after the run of its batch.
pub struct Together {
    rows: BatchRows,
    model: Arc<Model>,
}

impl Together {
    /// The rows of a request to that model.
    pub(super) fn new(rows: BatchRows, model: Arc<Model>) -> Together {
        Together { rows, model }
    }
}

impl Ran {
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        match self {
            Ran::Alone(lease) => lease.model(),
            Ran::Together(together) => &together.model,
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Ran::Alone(lease) => lease.binding().rows(),
            Ran::Together(together) => together.rows.rows(),
        }
    }

    /// An input, as it was run.
    ///
    /// # Errors
    /// `internal` for one that cannot be shown.
    pub fn input(&self, index: usize) -> Result<TensorView<'_>> {
        match self {
            Ran::Alone(lease) => lease.binding().input(index).view(),
            Ran::Together(together) => together.rows.input(index),
        }
    }

    /// An output.
    ///
    /// # Errors
    /// As [`Ran::input`].
    pub fn output(&self, index: usize) -> Result<TensorView<'_>> {
        match self {
            Ran::Alone(lease) => lease.binding().output(index),
            Ran::Together(together) => together.rows.output(index),
        }
    }

    /// The strings of an input, not copied; `None` for another type.
    pub fn input_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            Ran::Alone(lease) => lease.binding().input(index).strings(),
            // Strings are not batched.
            Ran::Together(_) => None,
        }
    }

    /// The strings of an output, not copied; `None` for another type.
    pub fn output_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            Ran::Alone(lease) => lease.binding().output_strings(index),
            Ran::Together(_) => None,
        }
    }
}
