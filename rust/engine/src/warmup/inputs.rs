//! What a model is warmed with: the requests of its artifact's `warmup.json` (`given`), or inputs that are made up (`made_up`). A model
//! that was not warmed is probed with the inputs of a request that it answered.
//!
//! What is given is known to be right, so a model that fails on it is refused. What is made up is a guess.
//! Next: `warm`.

use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature};
use headgate_runtime::Binding;

use super::rows::Rows;
use super::synthetic::MadeUp;
use super::warmup_file::{self, Given};
use crate::compute::Cell;

/// Inputs to warm a model with.
#[derive(Clone, Debug)]
pub(crate) enum Warmup {
    /// Of the artifact.
    Given(Vec<Given>),
    /// Made up from the signature.
    MadeUp(MadeUp),
}

impl Warmup {
    /// Inputs that are made up without a look at the signature.
    pub(crate) const ZEROS: Warmup = Warmup::MadeUp(MadeUp::ZEROS);

    /// The requests that lie beside the model file at `path`.
    ///
    /// # Errors
    /// `model_load_failed` for a file that holds none, or such as do not fit the signature.
    pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<Warmup> {
        let requests = warmup_file::beside(path, signature)?;
        Ok(requests.map_or(Warmup::ZEROS, Warmup::Given))
    }

    /// Whether these inputs are known to be right.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self, Warmup::Given(_))
    }

    /// The first request that gives no optional input, if there is one, else the first: what a run over it tells holds for most.
    pub(crate) fn plain(&self) -> usize {
        match self {
            Warmup::Given(requests) => requests.iter().position(Given::is_plain).unwrap_or(0),
            Warmup::MadeUp(_) => 0,
        }
    }

    /// That request alone.
    pub(crate) fn plain_only(&self) -> Warmup {
        match self {
            Warmup::Given(requests) => Warmup::Given(vec![requests[self.plain()].clone()]),
            Warmup::MadeUp(made_up) => Warmup::MadeUp(*made_up),
        }
    }

    /// Inputs that a model took, in the signature's order, each with its shape.
    pub(crate) fn taken(inputs: Vec<(Shape, Cell)>) -> Warmup {
        Warmup::Given(vec![Given::taken(inputs)])
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Warmup::Given(requests) => requests.len(),
            Warmup::MadeUp(_) => 1,
        }
    }

    /// The inputs to try one after the other until the model takes one of them.
    pub(crate) fn attempts(self, signature: &Signature) -> Vec<Warmup> {
        match self {
            Warmup::MadeUp(_) => MadeUp::attempts(signature).into_iter().map(Warmup::MadeUp).collect(),
            given => vec![given],
        }
    }

    /// The failure of request `at`, with what is to be done about it.
    pub(crate) fn blame(&self, at: usize, error: &Error) -> Error {
        match self {
            Warmup::Given(requests) => warmup_file::blame(requests, at, error),
            Warmup::MadeUp(_) => error.clone(),
        }
    }

    /// Fills the inputs with request `at`.
    pub(crate) fn fill(&self, binding: &mut Binding, signature: &Signature, at: usize) -> Result<()> {
        match self {
            Warmup::Given(requests) => requests[at].fill(binding),
            Warmup::MadeUp(made_up) => made_up.fill(binding, signature, 1),
        }
    }

    /// Rows to compare: of each kind those of all given requests, or what is made up, one attempt after the other.
    pub(crate) fn rows<'a>(
        &'a self,
        signature: &'a Signature,
    ) -> Box<dyn Iterator<Item = Result<Rows>> + 'a> {
        match self {
            Warmup::Given(requests) => Box::new(warmup_file::rows(requests).into_iter().map(Ok)),
            Warmup::MadeUp(made_up) => Box::new(made_up.rows(signature)),
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
            Warmup::Given(requests) => requests[self.plain()].fill_rows(binding, rows, first),
            Warmup::MadeUp(made_up) => made_up.fill(binding, signature, rows),
        }
    }
}

/// Whether a failure says something about the inputs: want of memory, and a load that was cancelled, do not.
pub(crate) fn is_of_the_run(error: &Error) -> bool {
    !matches!(error.code, Code::Overloaded | Code::Cancelled)
}
