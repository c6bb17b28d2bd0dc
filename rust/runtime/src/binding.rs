//! One run's inputs and outputs, made once and used again: while shapes repeat, a run allocates nothing of ours.
//!
//! Next: `tensor`.

use std::ptr::{null, null_mut};
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use ort_sys::OrtValue;

use crate::device::Driver;
use crate::library::Library;
use crate::session::Session;
use crate::strings::Strings;
use crate::tensor::{Tensor, Value, View};

/// The tensors of one run of one session. Lease one for a request, give it back after the answer is out.
pub struct Binding {
    inputs: Vec<Tensor>,
    outputs: Vec<Output>,
    raw_inputs: Vec<*const OrtValue>,
    raw_outputs: Vec<*mut OrtValue>,
    library: &'static Library,
}

// SAFETY: the raw pointers are written and read within `run` only, and point to values that the binding owns.
unsafe impl Send for Binding {}
// SAFETY: shared access reads: the raw pointers are not touched, and the runtime's reading functions change nothing.
unsafe impl Sync for Binding {}

/// One output: ours where its shape could be foretold, else the runtime's.
struct Output {
    tensor: Tensor,
    allocated: Option<Value>,
}

impl Binding {
    /// Tensors for one run of something with that signature, without shapes yet.
    pub fn new(library: &'static Library, signature: &Signature) -> Binding {
        Binding::in_memory_of(None, library, signature)
    }

    /// As [`Binding::new`], in memory that a device reads and writes by itself.
    pub fn in_memory_of(
        driver: Option<&Arc<dyn Driver>>,
        library: &'static Library,
        signature: &Signature,
    ) -> Binding {
        let tensors = |specs: &[TensorSpec]| {
            specs.iter().map(|spec| Tensor::in_memory_of(driver, library, spec.datatype)).collect::<Vec<_>>()
        };
        let inputs = tensors(&signature.inputs);
        let outputs = tensors(&signature.outputs);
        Binding {
            raw_inputs: vec![null(); inputs.len()],
            raw_outputs: vec![null_mut(); outputs.len()],
            inputs,
            outputs: outputs.into_iter().map(|tensor| Output { tensor, allocated: None }).collect(),
            library,
        }
    }

    /// The input at its place in the signature.
    pub fn input(&self, index: usize) -> &Tensor {
        &self.inputs[index]
    }

    /// The input at its place in the signature, to be shaped and filled.
    pub fn input_mut(&mut self, index: usize) -> &mut Tensor {
        &mut self.inputs[index]
    }

    /// An output to be shaped and filled by whoever computes without a session.
    pub fn output_mut(&mut self, index: usize) -> &mut Tensor {
        self.outputs[index].allocated = None;
        &mut self.outputs[index].tensor
    }

    /// Makes sure that every input was given a shape.
    pub(crate) fn check_inputs(&self) -> Result<()> {
        if self.inputs.iter().all(|tensor| !tensor.raw().is_null()) {
            return Ok(());
        }
        Err(Error::new(Code::Internal, "an input was not given a shape before the run"))
    }

    /// Takes an output that the runtime made.
    pub(crate) fn take_output(&mut self, index: usize, value: Value) {
        self.outputs[index].allocated = Some(value);
    }

    /// The rows of the request: the first input's; 1 without inputs.
    pub fn rows(&self) -> usize {
        self.inputs.first().map_or(1, |input| input.shape().rows())
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// `internal` before the first run.
    pub fn output(&self, index: usize) -> Result<View<'_>> {
        let output = &self.outputs[index];
        match &output.allocated {
            Some(value) => View::of(self.library, value),
            None => output.tensor.view(),
        }
    }

    /// The strings of an output, not copied; `None` for another type and before the first run.
    pub fn output_strings(&self, index: usize) -> Option<Strings<'_>> {
        let output = &self.outputs[index];
        match &output.allocated {
            Some(value) => Strings::of(self.library, value),
            None => output.tensor.strings(),
        }
    }

    /// Gives back what others own: outputs that could not be foretold, strings, adopted bytes.
    pub fn forget(&mut self) {
        self.inputs.iter_mut().for_each(Tensor::forget);
        for output in &mut self.outputs {
            output.allocated = None;
            output.tensor.forget();
        }
    }

    /// Bytes held by the tensors that we own.
    pub fn capacity(&self) -> usize {
        let outputs = self.outputs.iter().map(|output| output.tensor.capacity());
        self.inputs.iter().map(Tensor::capacity).chain(outputs).sum()
    }

    /// Runs the session over the inputs.
    ///
    /// # Errors
    /// `backend_failed`, `overloaded` for want of memory; `internal` when an input has no shape yet.
    pub fn run(&mut self, session: &Session) -> Result<()> {
        self.check_inputs()?;
        for (raw, tensor) in self.raw_inputs.iter_mut().zip(&self.inputs) {
            *raw = tensor.raw();
        }
        let foretold = self.place_outputs(session)?;
        let result = self.call(session);
        // The runtime's words for an output of another size; any other failure would only fail again.
        let misfit = result.as_ref().is_err_and(|error| error.message.contains("shape"));
        if misfit && foretold {
            // A model may declare one size and give another; then the runtime must allocate.
            self.raw_outputs.fill(null_mut());
            if self.call(session).is_ok() {
                session.distrust_rules();
                return Ok(());
            }
        }
        result
    }

    /// Sets the output pointers; true when at least one is ours.
    fn place_outputs(&mut self, session: &Session) -> Result<bool> {
        let mut foretold = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            output.allocated = None;
            self.raw_outputs[index] = match session.output_shape(index, |input| self.inputs[input].shape()) {
                Some(shape) if foretells(output.tensor.datatype(), &shape) => {
                    output.tensor.reshape(&shape)?;
                    foretold = true;
                    output.tensor.raw()
                }
                _ => null_mut(),
            };
        }
        Ok(foretold)
    }

    fn call(&mut self, session: &Session) -> Result<()> {
        // SAFETY: inputs are live and in the signature's order (checked in `run`); outputs are null or ours, and `&mut self`
        // keeps everyone else away.
        let ran = unsafe { session.run(&self.raw_inputs, &mut self.raw_outputs) };
        // All are taken over before any is found missing, so that none is lost; a run that failed may have made some.
        let mut missing = None;
        for (raw, output) in self.raw_outputs.iter().zip(&mut self.outputs) {
            if raw.is_null() && ran.is_err() {
                continue;
            }
            if raw.is_null() || *raw != output.tensor.raw() {
                match Value::new(self.library, *raw) {
                    Ok(value) => output.allocated = Some(value),
                    Err(error) => missing = Some(error),
                }
            }
        }
        ran.and(missing.map_or(Ok(()), Err))
    }
}

/// Outputs beyond this are the runtime's to allocate: their size follows from what a request claims.
const FORETOLD_BYTES: usize = 16 << 20;

/// Whether an output of that shape is made before the run.
pub(crate) fn foretells(datatype: DataType, shape: &Shape) -> bool {
    datatype.size().is_some_and(|size| shape.count() <= FORETOLD_BYTES / size)
}
