//! A recorded pair: what a version was asked and what it answered, from a request or from a file.

use headgate_core::error::Result;
use headgate_core::tensor::Signature;
use headgate_engine::runtime::TensorView;
use headgate_engine::{BufferLease, RunResult};

/// What a version was asked and what it answered.
pub trait RecordedPair: OutputTensors {
    /// The version's inputs and outputs.
    fn signature(&self) -> &Signature;

    /// The number of rows.
    fn rows(&self) -> usize;

    /// A required input, by its index in the signature.
    ///
    /// # Errors
    /// `internal` if it cannot be viewed, because the run that had it is lost.
    fn input(&self, index: usize) -> Result<TensorView<'_>>;

    /// The optional inputs that were given, each with its index in the signature.
    ///
    /// # Errors
    /// As [`RecordedPair::input`].
    fn optional_inputs(&self) -> Result<Vec<(usize, TensorView<'_>)>>;
}

/// The outputs of a run.
pub trait OutputTensors {
    /// An output, by its index in the signature.
    ///
    /// # Errors
    /// `internal` if it cannot be viewed.
    fn output(&self, index: usize) -> Result<TensorView<'_>>;
}

impl RecordedPair for RunResult {
    fn signature(&self) -> &Signature {
        self.model().signature()
    }

    fn rows(&self) -> usize {
        RunResult::rows(self)
    }

    fn input(&self, index: usize) -> Result<TensorView<'_>> {
        RunResult::input(self, index)
    }

    fn optional_inputs(&self) -> Result<Vec<(usize, TensorView<'_>)>> {
        RunResult::optional_inputs(self).map(|(index, tensor)| Ok((index, tensor.view()?))).collect()
    }
}

impl OutputTensors for RunResult {
    fn output(&self, index: usize) -> Result<TensorView<'_>> {
        RunResult::output(self, index)
    }
}

impl OutputTensors for BufferLease {
    fn output(&self, index: usize) -> Result<TensorView<'_>> {
        BufferLease::output(self, index)
    }
}
