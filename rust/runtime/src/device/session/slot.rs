//! What one run in the air needs: memory on the device, and tensors that are bound to it.

use std::ptr::null_mut;
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, TensorSpec};

use crate::device::driver::{Driver, Handle};
use crate::device::io::{IoBinding, MemoryInfo};
use crate::device::slab::Slab;
use crate::element::to_onnx;
use crate::library::Library;
use crate::session::Session;
use crate::value::Value;

/// What one run in the air needs.
pub(super) struct Slot {
    pub(super) free: bool,
    pub(super) inputs: Vec<Option<Slab>>,
    pub(super) outputs: Vec<Option<Slab>>,
    pub(super) bound: Vec<Bound>,
    pub(super) copied: Handle,
    pub(super) done: Handle,
    driver: Arc<dyn Driver>,
}

/// Inputs and outputs of certain shapes, bound.
pub(super) struct Bound {
    pub(super) inputs: Vec<Shape>,
    /// The shapes of the outputs, where they are in our slabs.
    pub(super) outputs: Vec<Option<Shape>>,
    pub(super) io: IoBinding,
    /// What is bound; the runtime keeps references of its own.
    _values: Vec<Value>,
}

pub(super) fn unbound() -> Error {
    Error::new(Code::Internal, "a tensor without its memory on the device")
}

impl Slot {
    pub(super) fn new(
        driver: &Arc<dyn Driver>,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<Slot> {
        let none = |specs: &[TensorSpec]| specs.iter().map(|_| None).collect();
        let copied = driver.event()?;
        let done = driver.event().inspect_err(|_| driver.end_event(copied))?;
        let (inputs, outputs) = (none(inputs), none(outputs));
        Ok(Slot { free: true, inputs, outputs, bound: Vec::new(), copied, done, driver: driver.clone() })
    }

    /// Gives every tensor a slab that is large enough; what was bound to a smaller one is bound anew.
    pub(super) fn make_room(
        &mut self,
        inputs: &[TensorSpec],
        input_shapes: impl Iterator<Item = Option<Shape>>,
        outputs: &[TensorSpec],
        output_shapes: impl Iterator<Item = Option<Shape>>,
    ) -> Result<()> {
        let inputs = inputs.iter().zip(input_shapes).zip(&mut self.inputs);
        let outputs = outputs.iter().zip(output_shapes).zip(&mut self.outputs);
        for ((spec, shape), slab) in inputs.chain(outputs) {
            let Some(shape) = shape else { continue };
            let bytes = shape.count().saturating_mul(spec.datatype.size().unwrap_or(0));
            if slab.as_ref().is_none_or(|slab| slab.bytes() < bytes) {
                self.bound.clear();
                *slab = None;
                *slab = Some(Slab::new(&self.driver, bytes)?);
            }
        }
        Ok(())
    }

    pub(super) fn bind(
        &self,
        session: &Session,
        memory: &MemoryInfo,
        (inputs, on_device): (Vec<Shape>, &[bool]),
        outputs: Vec<Option<Shape>>,
    ) -> Result<Bound> {
        let library = session.library;
        let io = IoBinding::new(session)?;
        let mut values = Vec::new();
        let specs = session.signature();
        for (index, (shape, spec)) in inputs.iter().zip(&specs.inputs).enumerate() {
            if !on_device[index] {
                // Bound anew for each run, where it is.
                continue;
            }
            let slab = self.inputs[index].as_ref().ok_or_else(unbound)?;
            let value = over(library, memory, slab, spec, shape)?;
            // SAFETY: made in the line before.
            unsafe { io.bind_input(session, index, value.raw.as_ptr())? };
            values.push(value);
        }
        for (index, (shape, spec)) in outputs.iter().zip(&specs.outputs).enumerate() {
            let Some(shape) = shape else {
                io.leave_output(session, index)?;
                continue;
            };
            let slab = self.outputs[index].as_ref().ok_or_else(unbound)?;
            let value = over(library, memory, slab, spec, shape)?;
            io.bind_output(session, index, &value)?;
            values.push(value);
        }
        Ok(Bound { inputs, outputs, io, _values: values })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.driver.end_event(self.copied);
        self.driver.end_event(self.done);
    }
}

/// A value over a slab.
fn over(
    library: &'static Library,
    memory: &MemoryInfo,
    slab: &Slab,
    spec: &TensorSpec,
    shape: &Shape,
) -> Result<Value> {
    let bytes = shape.count() * spec.datatype.size().unwrap_or(0);
    let mut raw = null_mut();
    // SAFETY: the slab holds `bytes` of that memory and outlives what is bound to it; the shape is `rank` numbers.
    let status = unsafe {
        (library.api.CreateTensorWithDataAsOrtValue)(
            memory.raw.as_ptr(),
            slab.start().as_ptr().cast(),
            bytes,
            shape.dims().as_ptr(),
            shape.dims().len(),
            to_onnx(spec.datatype),
            &mut raw,
        )
    };
    library.api.check(status, Code::Internal)?;
    Value::new(library, raw)
}
