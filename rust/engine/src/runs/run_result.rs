//! What a run leaves for the response and for statistics: its inputs and outputs, in buffers of its own or in a batch.
//!
//! Next: back to the server's `infer`.

use std::sync::Arc;

use headgate_core::error::Result;
use headgate_runtime::{Elements, StringTensor, Tensor, TensorView};

use super::copied_result::CopiedResult;
use super::lease::BufferLease;
use crate::batching::BatchRows;
use crate::models::Model;

/// Inputs and outputs of a finished run.
pub enum RunResult {
    /// In buffers of its own.
    Single(BufferLease),
    /// Among the rows of a batch.
    Batched(BatchedResult),
    /// Copied out of a batch.
    Copied(Box<CopiedResult>),
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
            RunResult::Copied(copied) => copied.model(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            RunResult::Single(lease) => lease.binding().rows(),
            RunResult::Batched(batched) => batched.rows.rows(),
            RunResult::Copied(copied) => copied.rows(),
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
            RunResult::Copied(copied) => copied.input(index),
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
            RunResult::Copied(copied) => copied.output(index),
        }
    }

    /// The strings of an input, not copied; `None` for another type.
    pub fn input_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().input(index).strings(),
            // Strings are not batched.
            RunResult::Batched(_) | RunResult::Copied(_) => None,
        }
    }

    /// The strings of an output, not copied; `None` for another type.
    pub fn output_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        match self {
            RunResult::Single(lease) => lease.binding().output_strings(index),
            RunResult::Batched(_) | RunResult::Copied(_) => None,
        }
    }

    /// The optional inputs that the request gave: the index of each among the signature's, and its tensor.
    pub fn optional_inputs(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        let given = match self {
            RunResult::Single(lease) => Some(lease.binding().optional_inputs()),
            // A request with optional inputs runs alone.
            RunResult::Batched(_) | RunResult::Copied(_) => None,
        };
        given.into_iter().flatten()
    }
}

/// For an owner that keeps the tensors after the response.
impl RunResult {
    /// Detaches the tensors from what requests share. The memory that the request was counted with is released. Rows of a batch with at
    /// most `max_copied` bytes are copied, so that the slab is free for the next batch, and so are inputs that lie in a much larger body. A
    /// slab that is kept leaves the count of the version's slabs. The model may leave memory, unless it made the outputs. Any thread may be
    /// the last owner.
    ///
    /// # Errors
    /// `internal` if a tensor cannot be viewed. Then the tensors are not to be used.
    pub fn detach(&mut self, max_copied: usize) -> Result<()> {
        match self {
            RunResult::Single(lease) => {
                lease.detach();
                // A small input may keep a large body in memory.
                lease.binding_mut().copy_small_adopted(max_copied)?;
            }
            RunResult::Batched(batched) => {
                if let Some(copied) = batched.copied_up_to(max_copied)? {
                    *self = RunResult::Copied(Box::new(copied));
                }
            }
            RunResult::Copied(_) => {}
        }
        Ok(())
    }

    /// Returns buffers that no other owner kept. For a thread whose requests need them, and no thread of low priority.
    pub fn recycle(self) {
        if let RunResult::Single(lease) = self {
            lease.recycle();
        }
    }

    /// The bytes that the tensors keep in memory; for rows of a batch, those of the whole batch.
    pub fn held_bytes(&self) -> usize {
        match self {
            RunResult::Single(lease) => lease.binding().held_bytes(),
            RunResult::Batched(batched) => batched.rows.held_bytes(),
            RunResult::Copied(copied) => copied.held_bytes(),
        }
    }
}

impl BatchedResult {
    /// A copy, if that has at most `max_bytes`; else the slab leaves the count of the version's slabs.
    fn copied_up_to(&self, max_bytes: usize) -> Result<Option<CopiedResult>> {
        let BatchedResult { rows, model } = self;
        let signature = model.signature();
        let inputs =
            (0..signature.inputs.len()).map(|index| rows.input(index)).collect::<Result<Vec<_>>>()?;
        // After a run that failed there are none.
        let outputs = (0..signature.outputs.len()).map_while(|index| rows.output(index).ok());
        let outputs: Vec<_> = outputs.collect();
        let bytes = |view: &TensorView<'_>| match view.data {
            Elements::Bytes(bytes) => bytes.len(),
            Elements::Strings { .. } => 0,
        };
        if inputs.iter().chain(&outputs).map(bytes).sum::<usize>() > max_bytes {
            rows.release_slab();
            return Ok(None);
        }
        CopiedResult::of(model.clone(), rows.rows(), &inputs, &outputs).map(Some)
    }
}
