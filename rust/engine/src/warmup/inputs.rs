//! What a model is warmed with: the requests of its artifact's `warmup.json` (`given`), or inputs that are made up (`synthetic`). A model
//! that was not warmed is probed with the inputs of a request that it answered.
//!
//! What is given is known to be right, so a model that fails on it is refused. What is made up is a guess.
//! Next: `warm`.

use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature};
use headgate_runtime::Binding;

use super::rows::RowSet;
use super::synthetic::SyntheticInputs;
use super::warmup_file::{self, WarmupRequest};
use crate::compute::ElementBuffer;

/// Inputs to warm a model with.
#[derive(Clone, Debug)]
pub(crate) enum WarmupInputs {
    /// Of the artifact.
    FromFile(Vec<WarmupRequest>),
    /// Made up from the signature.
    Synthetic(SyntheticInputs),
}

impl WarmupInputs {
    /// Inputs that are made up without a look at the signature.
    pub(crate) const ZEROS: WarmupInputs = WarmupInputs::Synthetic(SyntheticInputs::ZEROS);

    /// The requests that lie beside the model file at `path`.
    ///
    /// # Errors
    /// `model_load_failed` for a file that holds none, or such as do not fit the signature.
    pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<WarmupInputs> {
        let requests = warmup_file::beside(path, signature)?;
        Ok(requests.map_or(WarmupInputs::ZEROS, WarmupInputs::FromFile))
    }

    /// Whether these inputs are known to be right.
    pub(crate) fn is_from_file(&self) -> bool {
        matches!(self, WarmupInputs::FromFile(_))
    }

    /// The first request that gives no optional input, if there is one, else the first: what a run over it tells holds for most.
    pub(crate) fn plain_index(&self) -> usize {
        match self {
            WarmupInputs::FromFile(requests) => {
                requests.iter().position(WarmupRequest::is_plain).unwrap_or(0)
            }
            WarmupInputs::Synthetic(_) => 0,
        }
    }

    /// That request alone.
    pub(crate) fn plain_only(&self) -> WarmupInputs {
        match self {
            WarmupInputs::FromFile(requests) => {
                WarmupInputs::FromFile(vec![requests[self.plain_index()].clone()])
            }
            WarmupInputs::Synthetic(synthetic) => WarmupInputs::Synthetic(*synthetic),
        }
    }

    /// Inputs that a model took, in the signature's order, each with its shape.
    pub(crate) fn from_elements(inputs: Vec<(Shape, ElementBuffer)>) -> WarmupInputs {
        WarmupInputs::FromFile(vec![WarmupRequest::from_elements(inputs)])
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            WarmupInputs::FromFile(requests) => requests.len(),
            WarmupInputs::Synthetic(_) => 1,
        }
    }

    /// The inputs to try one after the other until the model takes one of them.
    pub(crate) fn attempts(self, signature: &Signature) -> Vec<WarmupInputs> {
        match self {
            WarmupInputs::Synthetic(_) => {
                SyntheticInputs::attempts(signature).into_iter().map(WarmupInputs::Synthetic).collect()
            }
            given => vec![given],
        }
    }

    /// The failure of request `at`, with what is to be done about it.
    pub(crate) fn describe_failure(&self, at: usize, error: &Error) -> Error {
        match self {
            WarmupInputs::FromFile(requests) => warmup_file::describe_failure(requests, at, error),
            WarmupInputs::Synthetic(_) => error.clone(),
        }
    }

    /// Fills the inputs with request `at`.
    pub(crate) fn fill(&self, binding: &mut Binding, signature: &Signature, at: usize) -> Result<()> {
        match self {
            WarmupInputs::FromFile(requests) => requests[at].fill(binding),
            WarmupInputs::Synthetic(synthetic) => synthetic.fill(binding, signature, 1),
        }
    }

    /// RowSet to compare: of each kind those of all given requests, or what is made up, one attempt after the other.
    pub(crate) fn rows<'a>(
        &'a self,
        signature: &'a Signature,
    ) -> Box<dyn Iterator<Item = Result<RowSet>> + 'a> {
        match self {
            WarmupInputs::FromFile(requests) => Box::new(warmup_file::rows(requests).into_iter().map(Ok)),
            WarmupInputs::Synthetic(synthetic) => Box::new(synthetic.rows(signature)),
        }
    }

    /// Fills the inputs with `rows` rows, those from `first` on; rows of requests come round again.
    pub(crate) fn fill_rows(
        &self,
        binding: &mut Binding,
        signature: &Signature,
        rows: usize,
        first: usize,
    ) -> Result<()> {
        match self {
            WarmupInputs::FromFile(requests) => requests[self.plain_index()].fill_rows(binding, rows, first),
            WarmupInputs::Synthetic(synthetic) => synthetic.fill(binding, signature, rows),
        }
    }
}

/// Whether a failure says something about the inputs: want of memory, and a load that was cancelled, do not.
pub(crate) fn concerns_inputs(error: &Error) -> bool {
    !matches!(error.code, Code::Overloaded | Code::Cancelled)
}
