//! What a model is warmed up with: the requests of its artifact's `warmup.json` (`warmup_file`), or synthetic inputs (`synthetic`). A model
//! that was not warmed up is probed with the inputs of a request that it answered.
//!
//! The requests of the file are known to be right, so a model that fails on them is refused. Synthetic inputs are a guess.
//! Next: `load/warm_up`.

use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature};
use headgate_runtime::Binding;

use super::rows::RowSet;
use super::synthetic::SyntheticInputs;
use super::warmup_file::{self, WarmupRequest};
use crate::compute::ElementBuffer;

/// Inputs to warm a model up with.
#[derive(Clone, Debug)]
pub(crate) enum WarmupInputs {
    /// The requests of the artifact.
    FromFile(Vec<WarmupRequest>),
    /// Made from the signature.
    Synthetic(SyntheticInputs),
}

impl WarmupInputs {
    /// Synthetic inputs that need no signature.
    pub(crate) const ZEROS: WarmupInputs = WarmupInputs::Synthetic(SyntheticInputs::ZEROS);

    /// The requests of the file beside the model file at `path`, or else synthetic inputs.
    ///
    /// # Errors
    /// `model_load_failed` if the file has no requests, or some that do not fit the signature.
    pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<WarmupInputs> {
        let requests = warmup_file::beside(path, signature)?;
        Ok(requests.map_or(WarmupInputs::ZEROS, WarmupInputs::FromFile))
    }

    /// Whether these inputs come from the file, so that they are known to be right.
    pub(crate) fn is_from_file(&self) -> bool {
        matches!(self, WarmupInputs::FromFile(_))
    }

    /// The index of the first request without optional inputs, or else 0. Most requests to the model are like that one.
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

    /// Inputs that a model accepted, in the order of the signature, each with its shape.
    pub(crate) fn from_elements(inputs: Vec<(Shape, ElementBuffer)>) -> WarmupInputs {
        WarmupInputs::FromFile(vec![WarmupRequest::from_elements(inputs)])
    }

    /// The number of requests.
    pub(crate) fn len(&self) -> usize {
        match self {
            WarmupInputs::FromFile(requests) => requests.len(),
            WarmupInputs::Synthetic(_) => 1,
        }
    }

    /// The inputs to try one after the other until the model runs.
    pub(crate) fn attempts(self, signature: &Signature) -> Vec<WarmupInputs> {
        match self {
            WarmupInputs::Synthetic(_) => {
                SyntheticInputs::attempts(signature).into_iter().map(WarmupInputs::Synthetic).collect()
            }
            given => vec![given],
        }
    }

    /// The error of request `at`, with its place in the file.
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

    /// Rows to compare: those of all requests by kind, or synthetic ones, one attempt after the other.
    pub(crate) fn rows<'a>(
        &'a self,
        signature: &'a Signature,
    ) -> Box<dyn Iterator<Item = Result<RowSet>> + 'a> {
        match self {
            WarmupInputs::FromFile(requests) => Box::new(warmup_file::rows(requests).into_iter().map(Ok)),
            WarmupInputs::Synthetic(synthetic) => Box::new(synthetic.rows(signature)),
        }
    }

    /// Fills the inputs with `rows` rows from `first` on. The rows of a request repeat.
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

/// Whether an error says something about the inputs. Lack of memory and a cancelled load do not.
pub(crate) fn concerns_inputs(error: &Error) -> bool {
    !matches!(error.code, Code::Overloaded | Code::Cancelled)
}
