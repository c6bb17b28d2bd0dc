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
use crate::output_check::{self, Found};
use crate::session::Session;
use crate::shape_rule::Preallocated;
use crate::strings::Strings;
use crate::tensor::{Data, Tensor, Value, View};

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

    /// The shapes of the inputs.
    pub(crate) fn input_shapes(&self) -> Vec<Shape> {
        self.inputs.iter().map(|input| *input.shape()).collect()
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
        self.place_inputs()?;
        let foretold = self.place_outputs(session, Preallocated::Proven, None)?;
        let result = self.call(session);
        let is_doubtful = match &result {
            Ok(()) => self.is_unwritten(),
            // Any other failure has nothing to do with buffers.
            Err(error) => error.code == Code::BackendFailed,
        };
        if foretold && is_doubtful { self.run_again(session, result) } else { result }
    }

    /// Whether a run left one of our buffers as it was.
    fn is_unwritten(&self) -> bool {
        self.outputs.iter().zip(&self.raw_outputs).any(|(output, raw)| {
            output.allocated.is_none() && *raw == output.tensor.raw() && output.tensor.is_marked()
        })
    }

    /// Runs once more without buffers of ours, after a run that may have gone wrong because of them: a model may declare one size
    /// and give another, or not write at all. Rules that did not hold are used no more.
    #[cold]
    fn run_again(&mut self, session: &Session, first: Result<()>) -> Result<()> {
        let ours: Vec<bool> = self
            .outputs
            .iter()
            .zip(&self.raw_outputs)
            .map(|(output, raw)| !raw.is_null() && *raw == output.tensor.raw())
            .collect();
        self.place_outputs(session, Preallocated::Nothing, None)?;
        // The request is at fault, or the model, and says so once more.
        self.call(session).map_err(|again| first.as_ref().err().cloned().unwrap_or(again))?;
        for index in (0..ours.len()).filter(|&index| ours[index]) {
            let Output { tensor, allocated: Some(value) } = &self.outputs[index] else { continue };
            let right = View::of(self.library, value)?;
            let is_left_alone =
                first.is_ok() && matches!(right.data, Data::Bytes(bytes) if *bytes != *tensor.bytes());
            if right.shape != *tensor.shape() || is_left_alone {
                session.rules.distrust(index);
            }
        }
        Ok(())
    }

    /// Finds out which outputs may have buffers of ours, by runs over the inputs, unless it is known.
    ///
    /// # Errors
    /// As [`Binding::run`].
    pub fn check_outputs(&mut self, session: &Session) -> Result<()> {
        self.place_inputs()?;
        output_check::prove(&session.rules, |which, pattern| {
            self.place_outputs(session, which, Some(pattern))?;
            self.call(session)?;
            (0..self.outputs.len()).map(|index| self.found(session, index)).collect()
        })
    }

    fn found(&self, session: &Session, index: usize) -> Result<Found> {
        let view = self.output(index)?;
        let bytes = if let Data::Bytes(bytes) = view.data { bytes.to_vec() } else { Vec::new() };
        let foretold = session.rules.shape(index, Preallocated::Unproven, |input| self.inputs[input].shape());
        Ok(Found { shape: view.shape, bytes, foretold, is_ours: self.outputs[index].allocated.is_none() })
    }

    /// Sets the input pointers.
    fn place_inputs(&mut self) -> Result<()> {
        self.check_inputs()?;
        for (raw, tensor) in self.raw_inputs.iter_mut().zip(&self.inputs) {
            *raw = tensor.raw();
        }
        Ok(())
    }

    /// Sets the output pointers, and marks what is ours or fills it; true when at least one is.
    fn place_outputs(&mut self, session: &Session, which: Preallocated, fill: Option<u8>) -> Result<bool> {
        let mut foretold = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            output.allocated = None;
            let shape = session.rules.shape(index, which, |input| self.inputs[input].shape());
            self.raw_outputs[index] = match shape {
                Some(shape) if foretells(output.tensor.datatype(), &shape) => {
                    output.tensor.reshape(&shape)?;
                    match fill {
                        None => output.tensor.mark(),
                        Some(pattern) => output.tensor.bytes_mut().unwrap_or_default().fill(pattern),
                    }
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::session::SessionOptions;
    use crate::shape_rule::Rules;

    /// A session whose input does not tell that it is an output as well: its rules are wrong.
    fn fooled(name: &str) -> Session {
        let path = std::env::var_os("HEADGATE_ORT_LIBRARY").expect("`make test` names the library");
        let library = Library::open(&PathBuf::from(path)).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name);
        let mut session = Session::load(library, &model, SessionOptions::default()).unwrap();
        let mut signature = session.signature().clone();
        signature.inputs.iter_mut().for_each(|input| input.name.push('_'));
        session.rules = Arc::new(Rules::derive(&signature, &[]));
        session
    }

    fn shape(session: &Session, index: usize, which: Preallocated) -> Option<Shape> {
        let rows = Shape::new(&[3]).unwrap();
        session.rules.shape(index, which, |_| &rows)
    }

    fn proven(session: &Session) -> Vec<bool> {
        let outputs = 0..session.signature().outputs.len();
        outputs.map(|index| shape(session, index, Preallocated::Proven).is_some()).collect()
    }

    fn run(session: &Session, binding: &mut Binding, values: [f32; 3]) -> Vec<Vec<f32>> {
        fill(binding, values);
        binding.run(session).unwrap();
        let outputs = 0..binding.outputs();
        outputs.map(|index| binding.output(index).unwrap().elements::<f32>().unwrap().to_vec()).collect()
    }

    fn fill(binding: &mut Binding, values: [f32; 3]) {
        let input = binding.input_mut(0);
        input.reshape(&Shape::new(&[3]).unwrap()).unwrap();
        input.elements_mut::<f32>().unwrap().copy_from_slice(&values);
    }

    #[test]
    fn an_output_that_is_left_alone_gets_no_buffer_once_it_was_checked() {
        let session = fooled("negative_and_input.onnx");
        let mut binding = Binding::new(session.library, session.signature());
        assert_eq!(proven(&session), [false, false], "nothing before a run");
        fill(&mut binding, [1.0, 2.0, 3.0]);
        binding.check_outputs(&session).unwrap();
        assert_eq!(proven(&session), [true, false]);
        for first in [5.0, 6.0] {
            let values = [first, 8.0, 9.0];
            assert_eq!(run(&session, &mut binding, values), [values.map(|value| -value), values]);
        }
        assert!(binding.outputs[0].allocated.is_none() && binding.outputs[1].allocated.is_some());
    }

    #[test]
    fn an_output_that_is_left_alone_later_is_noticed_and_right() {
        let session = fooled("negative_and_input.onnx");
        let mut binding = Binding::new(session.library, session.signature());
        (0..2).for_each(|index| session.rules.trust(index));
        let values = [7.0, 8.0, 9.0];
        assert_eq!(run(&session, &mut binding, values), [values.map(|value| -value), values]);
        assert_eq!(proven(&session), [true, false]);
    }

    #[test]
    fn a_mark_is_seen_in_every_size_until_it_is_overwritten() {
        let session = fooled("negative_and_input.onnx");
        let mut tensor = Tensor::new(session.library, DataType::Uint8);
        for size in 0..40 {
            tensor.reshape(&Shape::new(&[size]).unwrap()).unwrap();
            tensor.mark();
            assert_eq!(tensor.is_marked(), size > 0, "{size}");
            tensor.bytes_mut().unwrap().fill(0);
            assert!(!tensor.is_marked(), "{size}");
        }
    }

    #[test]
    fn a_size_that_was_not_declared_is_noticed_without_a_look_at_words() {
        let session = fooled("shape_liar.onnx");
        let mut binding = Binding::new(session.library, session.signature());
        session.rules.trust(0);
        binding.input_mut(1).reshape(&Shape::new(&[3]).unwrap()).unwrap();
        binding.input_mut(1).elements_mut::<u8>().unwrap().copy_from_slice(&[1, 0, 1]);
        assert_eq!(run(&session, &mut binding, [1.0, 2.0, 3.0]), [[1.0, 3.0]]);
        assert_eq!(proven(&session), [false]);
    }

    #[test]
    fn a_request_that_fails_is_no_reason_to_distrust_a_rule() {
        let session = fooled("gather.onnx");
        let mut binding = Binding::new(session.library, session.signature());
        session.rules.trust(0);
        let index = binding.input_mut(0);
        index.reshape(&Shape::new(&[1]).unwrap()).unwrap();
        index.elements_mut::<i64>().unwrap()[0] = 99;
        assert_eq!(binding.run(&session).unwrap_err().code, Code::BackendFailed);
        assert_eq!(proven(&session), [true]);
    }
}
