//! The optional inputs of one run: those that the request has, with their tensors.
//!
//! A tensor is made when an input occurs for the first time, and used again. After the run the inputs are removed, so that the
//! next run has the model's own values. Next: `binding`.

use std::ffi::c_char;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, TensorSpec};
use ort_sys::OrtValue;

use crate::library::Library;
use crate::session::Session;
use crate::tensor::Tensor;

/// The optional inputs of a binding.
#[derive(Default)]
pub(crate) struct OptionalInputs {
    datatypes: Box<[DataType]>,
    /// First the inputs of this run, then those of earlier runs.
    tensors: Vec<OptionalTensor>,
    given_count: usize,
    names: Vec<*const c_char>,
}

/// The tensor of one optional input.
struct OptionalTensor {
    /// Its index among the signature's optional inputs.
    index: usize,
    tensor: Tensor,
}

impl OptionalInputs {
    /// No input yet. `None` for a model without optional inputs, so that its bindings stay small.
    pub(crate) fn new(specs: &[TensorSpec]) -> Option<Box<OptionalInputs>> {
        let datatypes: Box<[_]> = specs.iter().map(|spec| spec.datatype).collect();
        (!specs.is_empty()).then(|| Box::new(OptionalInputs { datatypes, ..OptionalInputs::default() }))
    }

    /// Whether the run has any.
    pub(crate) fn any_given(&self) -> bool {
        self.given_count > 0
    }

    /// The inputs of the run.
    pub(crate) fn given(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.tensors[..self.given_count].iter().map(|optional| (optional.index, &optional.tensor))
    }

    /// Adds the input of this index to the run. The caller shapes and fills the tensor.
    pub(crate) fn tensor_mut(&mut self, library: &'static Library, index: usize) -> &mut Tensor {
        let known = self.tensors.iter().position(|optional| optional.index == index);
        let at = known.unwrap_or_else(|| {
            let tensor = Tensor::new(library, self.datatypes[index]);
            self.tensors.push(OptionalTensor { index, tensor });
            self.tensors.len() - 1
        });
        if at < self.given_count {
            return &mut self.tensors[at].tensor;
        }
        self.tensors.swap(at, self.given_count);
        self.given_count += 1;
        &mut self.tensors[self.given_count - 1].tensor
    }

    /// Removes all inputs from the run.
    pub(crate) fn forget(&mut self) {
        self.tensors[..self.given_count].iter_mut().for_each(|optional| optional.tensor.forget());
        self.given_count = 0;
    }

    /// Bytes of the tensors.
    pub(crate) fn capacity(&self) -> usize {
        self.tensors.iter().map(|optional| optional.tensor.capacity()).sum()
    }

    /// Bytes that the tensors keep in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        // A tensor of an earlier run has its buffer and nothing of others.
        self.tensors.iter().map(|optional| optional.tensor.held_bytes()).sum()
    }

    /// The tensors of the run.
    pub(crate) fn given_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.tensors[..self.given_count].iter_mut().map(|optional| &mut optional.tensor)
    }

    /// Appends the values of the run's optional inputs, and sets the names of all inputs of the run.
    ///
    /// # Errors
    /// `internal` for one without a shape.
    pub(crate) fn append_to(&mut self, session: &Session, values: &mut Vec<*const OrtValue>) -> Result<()> {
        self.names.clear();
        self.names.extend_from_slice(session.input_names.all());
        for OptionalTensor { index, tensor } in &self.tensors[..self.given_count] {
            if tensor.raw().is_null() {
                return Err(Error::new(
                    Code::Internal,
                    "an optional input was given no shape before the run",
                ));
            }
            self.names.push(session.optional_names.get(*index));
            values.push(tensor.raw());
        }
        Ok(())
    }

    /// The names of all inputs of the run, since [`OptionalInputs::append_to`].
    pub(crate) fn names(&self) -> &[*const c_char] {
        &self.names
    }
}
