//! The inputs and outputs of one run. A binding is used again: while shapes repeat, a run makes no allocation of ours.
//!
//! Next: `tensor`.

use std::ptr::{null, null_mut};
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use ort_sys::OrtValue;

use crate::device::driver::Driver;
use crate::library::Library;
use crate::optional::OptionalInputs;
use crate::output_check::{self, ObservedOutput};
use crate::session::Session;
use crate::shape_rule::{Preallocation, ShapeRule};
use crate::string_tensor::{StringTensor, held_bytes};
use crate::tensor::Tensor;
use crate::value::OwnedValue;
use crate::view::{Elements, TensorView};

/// The tensors of one run of one session. A request leases a binding until its response is sent.
pub struct Binding {
    inputs: Vec<Tensor>,
    optional: Option<Box<OptionalInputs>>,
    outputs: Vec<OutputSlot>,
    raw_inputs: Vec<*const OrtValue>,
    raw_outputs: Vec<*mut OrtValue>,
    library: &'static Library,
}

// SAFETY: the raw pointers are written and read within `run` only, and point to values that the binding owns.
unsafe impl Send for Binding {}
// SAFETY: shared access reads: the raw pointers are not touched, and the runtime's reading functions change nothing.
unsafe impl Sync for Binding {}

/// One output. Its tensor is ours if a rule predicted its shape, else the runtime allocates it.
struct OutputSlot {
    tensor: Tensor,
    allocated: Option<OwnedValue>,
}

impl OutputSlot {
    /// Gives the tensor the shape that its rule gives for inputs of these shapes, if it has another one. False for one that the runtime
    /// allocates.
    #[inline]
    fn prepare<'a>(&mut self, rule: &ShapeRule, inputs: impl Fn(usize) -> &'a Shape) -> Result<bool> {
        // A tensor that has the shape has its memory, too.
        if !self.tensor.raw().is_null() && rule.gives(self.tensor.shape(), &inputs) {
            return Ok(true);
        }
        let Some(shape) = rule.apply(inputs) else { return Ok(false) };
        if !may_preallocate(self.tensor.datatype(), &shape) {
            return Ok(false);
        }
        self.tensor.reshape(&shape)?;
        Ok(true)
    }
}

impl Binding {
    /// Tensors for one run of a model with that signature. They have no shapes yet.
    pub fn new(library: &'static Library, signature: &Signature) -> Binding {
        Binding::with_driver(None, library, signature)
    }

    /// As [`Binding::new`], in pinned memory, which a device reads and writes directly.
    pub fn with_driver(
        driver: Option<&Arc<dyn Driver>>,
        library: &'static Library,
        signature: &Signature,
    ) -> Binding {
        let tensors = |specs: &[TensorSpec]| {
            specs.iter().map(|spec| Tensor::with_driver(driver, library, spec.datatype)).collect::<Vec<_>>()
        };
        let inputs = tensors(&signature.inputs);
        let outputs = tensors(&signature.outputs);
        Binding {
            raw_inputs: vec![null(); inputs.len()],
            raw_outputs: vec![null_mut(); outputs.len()],
            inputs,
            optional: OptionalInputs::new(&signature.optional_inputs),
            outputs: outputs.into_iter().map(|tensor| OutputSlot { tensor, allocated: None }).collect(),
            library,
        }
    }

    /// The input at this index of the signature.
    pub fn input(&self, index: usize) -> &Tensor {
        &self.inputs[index]
    }

    /// The input at this index of the signature. The caller shapes and fills it.
    pub fn input_mut(&mut self, index: usize) -> &mut Tensor {
        &mut self.inputs[index]
    }

    /// Adds the optional input at this index of the signature's. The caller shapes and fills it. The input is part of runs until
    /// [`Binding::forget`] or [`Binding::clear_optional_inputs`].
    pub fn optional_input_mut(&mut self, index: usize) -> &mut Tensor {
        let optional = self.optional.as_mut().expect("the signature has optional inputs");
        optional.tensor_mut(self.library, index)
    }

    /// Removes the optional inputs from the next run.
    pub fn clear_optional_inputs(&mut self) {
        if let Some(optional) = &mut self.optional {
            optional.forget();
        }
    }

    /// Whether the run has optional inputs.
    pub fn has_optional_inputs(&self) -> bool {
        self.optional.as_ref().is_some_and(|optional| optional.any_given())
    }

    /// The optional inputs of the run: the index of each among the signature's, and its tensor.
    pub fn optional_inputs(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.optional.as_deref().into_iter().flat_map(OptionalInputs::given)
    }

    /// The shapes of the inputs.
    pub(crate) fn input_shapes(&self) -> Vec<Shape> {
        self.inputs.iter().map(|input| *input.shape()).collect()
    }

    /// An output, for a caller that computes without a session. The caller shapes and fills it.
    pub fn output_mut(&mut self, index: usize) -> &mut Tensor {
        self.outputs[index].allocated = None;
        &mut self.outputs[index].tensor
    }

    /// Checks that every input has a shape.
    pub(crate) fn check_inputs(&self) -> Result<()> {
        if self.inputs.iter().all(|tensor| !tensor.raw().is_null()) {
            return Ok(());
        }
        Err(Error::new(Code::Internal, "an input was not given a shape before the run"))
    }

    /// Stores an output that the runtime allocated.
    pub(crate) fn set_allocated_output(&mut self, index: usize, value: OwnedValue) {
        self.outputs[index].allocated = Some(value);
    }

    /// The rows of the request: those of the first input, or 1 without inputs.
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
    pub fn output(&self, index: usize) -> Result<TensorView<'_>> {
        let output = &self.outputs[index];
        match &output.allocated {
            Some(value) => TensorView::of(self.library, value),
            None => output.tensor.view(),
        }
    }

    /// The strings of an output, not copied. `None` for another type and before the first run.
    pub fn output_strings(&self, index: usize) -> Option<StringTensor<'_>> {
        let output = &self.outputs[index];
        match &output.allocated {
            Some(value) => StringTensor::of(self.library, value),
            None => output.tensor.strings(),
        }
    }

    /// Whether the runtime allocated an output of the last run.
    pub fn has_allocated_outputs(&self) -> bool {
        self.outputs.iter().any(|output| output.allocated.is_some())
    }

    /// Releases what others own: outputs that the runtime allocated, strings, adopted bytes.
    pub fn forget(&mut self) {
        self.inputs.iter_mut().for_each(Tensor::forget);
        self.clear_optional_inputs();
        for output in &mut self.outputs {
            output.allocated = None;
            output.tensor.forget();
        }
    }

    /// Bytes of the tensors that we own.
    pub fn capacity(&self) -> usize {
        let outputs = self.outputs.iter().map(|output| output.tensor.capacity());
        let optional = self.optional.as_ref().map_or(0, |optional| optional.capacity());
        self.inputs.iter().map(Tensor::capacity).chain(outputs).sum::<usize>() + optional
    }

    /// Bytes that the tensors keep in memory, those of others included: the buffer that adopted bytes lie in, strings, outputs that the
    /// runtime allocated.
    pub fn held_bytes(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(Tensor::held_bytes).sum();
        let outputs = self.outputs.iter().map(|output| {
            let allocated = output.allocated.as_ref().map_or(0, |value| held_bytes(self.library, value));
            allocated + output.tensor.held_bytes()
        });
        let optional = self.optional.as_ref().map_or(0, |optional| optional.held_bytes());
        inputs + outputs.sum::<usize>() + optional + self.adopted_from()
    }

    /// The longest buffer that adopted bytes lie in. All of them lie in the body of one request, so that it counts once.
    fn adopted_from(&self) -> usize {
        let optional = self.optional_inputs().map(|(_, tensor)| tensor.adopted_from()).max();
        self.inputs.iter().map(Tensor::adopted_from).max().max(optional).unwrap_or(0)
    }

    /// Copies adopted bytes if they are at most `max` and less than half of the buffer that they lie in, so that the buffer can be freed.
    ///
    /// # Errors
    /// As [`Tensor::reshape`].
    pub fn copy_small_adopted(&mut self, max: usize) -> Result<()> {
        let optional = self.optional_inputs().map(|(_, tensor)| tensor.adopted_bytes()).sum::<usize>();
        let adopted = self.inputs.iter().map(Tensor::adopted_bytes).sum::<usize>() + optional;
        if adopted == 0 || adopted > max || adopted >= self.adopted_from() / 2 {
            return Ok(());
        }
        let optional = self.optional.iter_mut().flat_map(|optional| optional.given_mut());
        self.inputs.iter_mut().chain(optional).try_for_each(Tensor::copy_adopted)
    }

    /// Runs the session over the inputs.
    ///
    /// # Errors
    /// `backend_failed`, `overloaded` for want of memory; `internal` when an input has no shape yet.
    pub fn run(&mut self, session: &Session) -> Result<()> {
        self.set_input_pointers()?;
        if self.has_optional_inputs() {
            return self.run_with_optional_inputs(session);
        }
        let predicted = self.set_output_pointers(session, Preallocation::Proven, None)?;
        let result = self.call_runtime(session);
        let is_doubtful = match &result {
            Ok(()) => self.has_unwritten_output(),
            // Any other failure has nothing to do with buffers.
            Err(error) => error.code == Code::BackendFailed,
        };
        if predicted && is_doubtful { self.run_without_preallocation(session, result) } else { result }
    }

    /// As [`Binding::run`], but no output gets a buffer: the rules of the outputs were proven with the model's own values of the
    /// optional inputs, and may not hold for others.
    #[cold]
    fn run_with_optional_inputs(&mut self, session: &Session) -> Result<()> {
        self.set_output_pointers(session, Preallocation::Nothing, None)?;
        let optional = self.optional.as_mut().expect("some are given");
        let result = optional.append_to(session, &mut self.raw_inputs).and_then(|()| {
            // SAFETY: as in `call_runtime`; the values stand in the order of their names.
            unsafe { session.run(optional.names(), &self.raw_inputs, &mut self.raw_outputs) }
        });
        self.raw_inputs.truncate(self.inputs.len());
        self.collect_outputs(result)
    }

    /// Whether a run left one of our buffers unwritten.
    fn has_unwritten_output(&self) -> bool {
        self.outputs.iter().zip(&self.raw_outputs).any(|(output, raw)| {
            output.allocated.is_none() && *raw == output.tensor.raw() && output.tensor.has_sentinel()
        })
    }

    /// Runs once more without our buffers, after a run that may have failed because of them: a model may give another size than it
    /// declares, or leave a buffer unwritten. Rules that did not hold are not used again.
    #[cold]
    fn run_without_preallocation(&mut self, session: &Session, first: Result<()>) -> Result<()> {
        let ours: Vec<bool> = self
            .outputs
            .iter()
            .zip(&self.raw_outputs)
            .map(|(output, raw)| !raw.is_null() && *raw == output.tensor.raw())
            .collect();
        self.set_output_pointers(session, Preallocation::Nothing, None)?;
        // If this run fails too, the buffers are not the cause: the error of the first run is returned.
        self.call_runtime(session).map_err(|again| first.as_ref().err().cloned().unwrap_or(again))?;
        for index in (0..ours.len()).filter(|&index| ours[index]) {
            let OutputSlot { tensor, allocated: Some(value) } = &self.outputs[index] else { continue };
            let right = TensorView::of(self.library, value)?;
            let is_left_alone =
                first.is_ok() && matches!(right.data, Elements::Bytes(bytes) if *bytes != *tensor.bytes());
            if right.shape != tensor.shape().view() || is_left_alone {
                session.rules.mark_wrong(index);
            }
        }
        Ok(())
    }

    /// Proves by runs which outputs may have our buffers, unless it is known. Runs with optional inputs prove nothing, so that the
    /// check is left out for them.
    ///
    /// # Errors
    /// As [`Binding::run`].
    pub fn check_outputs(&mut self, session: &Session) -> Result<()> {
        if self.has_optional_inputs() {
            return Ok(());
        }
        self.set_input_pointers()?;
        output_check::prove_rules(&session.rules, |preallocation, pattern| {
            self.set_output_pointers(session, preallocation, Some(pattern))?;
            self.call_runtime(session)?;
            (0..self.outputs.len()).map(|index| self.observe_output(session, index)).collect()
        })
    }

    fn observe_output(&self, session: &Session, index: usize) -> Result<ObservedOutput> {
        let view = self.output(index)?;
        let bytes = if let Elements::Bytes(bytes) = view.data { bytes.to_vec() } else { Vec::new() };
        let predicted =
            session.rules.shape(index, Preallocation::Unproven, |input| self.inputs[input].shape());
        Ok(ObservedOutput {
            shape: view.shape.to_shape(),
            bytes,
            predicted,
            is_preallocated: self.outputs[index].allocated.is_none(),
        })
    }

    /// Sets the input pointers.
    fn set_input_pointers(&mut self) -> Result<()> {
        self.check_inputs()?;
        for (raw, tensor) in self.raw_inputs.iter_mut().zip(&self.inputs) {
            *raw = tensor.raw();
        }
        Ok(())
    }

    /// Sets the output pointers. Our buffers get the sentinel, or the pattern `fill`. Returns whether an output has our buffer.
    fn set_output_pointers(
        &mut self,
        session: &Session,
        preallocation: Preallocation,
        fill: Option<u8>,
    ) -> Result<bool> {
        let mut predicted = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            output.allocated = None;
            self.raw_outputs[index] = null_mut();
            let Some(rule) = session.rules.rule(index, preallocation) else { continue };
            if !output.prepare(rule, |input| self.inputs[input].shape())? {
                continue;
            }
            match fill {
                None => output.tensor.write_sentinel(),
                Some(pattern) => output.tensor.bytes_mut().unwrap_or_default().fill(pattern),
            }
            predicted = true;
            self.raw_outputs[index] = output.tensor.raw();
        }
        Ok(predicted)
    }

    fn call_runtime(&mut self, session: &Session) -> Result<()> {
        // SAFETY: inputs are live and in the signature's order (checked in `run`); outputs are null or ours, and `&mut self`
        // excludes other users.
        let result =
            unsafe { session.run(session.input_names.all(), &self.raw_inputs, &mut self.raw_outputs) };
        self.collect_outputs(result)
    }

    /// Takes ownership of the outputs that the runtime allocated.
    #[inline]
    fn collect_outputs(&mut self, result: Result<()>) -> Result<()> {
        // All are taken before a missing one is reported, so that none leaks. A run that failed may have made some.
        let mut missing = None;
        for (raw, output) in self.raw_outputs.iter().zip(&mut self.outputs) {
            if raw.is_null() && result.is_err() {
                continue;
            }
            if raw.is_null() || *raw != output.tensor.raw() {
                match OwnedValue::new(self.library, *raw) {
                    Ok(value) => output.allocated = Some(value),
                    Err(error) => missing = Some(error),
                }
            }
        }
        result.and(missing.map_or(Ok(()), Err))
    }
}

/// The runtime allocates larger outputs, in bytes: their size follows from the shapes that a request claims.
const MAX_PREALLOCATED_BYTES: usize = 16 << 20;

/// Whether an output of that shape is allocated before the run.
pub(crate) fn may_preallocate(datatype: DataType, shape: &Shape) -> bool {
    datatype.size().is_some_and(|size| shape.count() <= MAX_PREALLOCATED_BYTES / size)
}

#[cfg(test)]
mod tests;
