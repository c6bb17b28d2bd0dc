//! A slot for one run in flight: memory on the device, and tensors that are bound to it.

use std::ptr::null_mut;
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature, TensorSpec};

use crate::device::driver::{Driver, DriverHandle};
use crate::device::io::{IoBinding, MemoryInfo};
use crate::device::slab::Slab;
use crate::element::to_onnx;
use crate::library::Library;
use crate::session::Session;
use crate::value::OwnedValue;

/// A slot for one run in flight.
pub(super) struct RunSlot {
    pub(super) free: bool,
    pub(super) inputs: Vec<Option<Slab>>,
    pub(super) outputs: Vec<Option<Slab>>,
    pub(super) bound: Vec<BoundRun>,
    pub(super) copied_event: DriverHandle,
    pub(super) done_event: DriverHandle,
    driver: Arc<dyn Driver>,
}

/// The shapes that inputs and outputs are bound for.
#[derive(PartialEq)]
pub(super) struct BoundShapes {
    pub(super) inputs: Vec<Shape>,
    /// The shapes of the outputs that are in our slabs.
    pub(super) outputs: Vec<Option<Shape>>,
}

/// Inputs and outputs of these shapes, bound.
pub(super) struct BoundRun {
    pub(super) shapes: BoundShapes,
    pub(super) io: IoBinding,
    /// The bound values. The runtime has references of its own.
    _values: Vec<OwnedValue>,
}

pub(super) fn unbound() -> Error {
    Error::new(Code::Internal, "a tensor without its memory on the device")
}

impl RunSlot {
    pub(super) fn new(
        driver: &Arc<dyn Driver>,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<RunSlot> {
        let none = |specs: &[TensorSpec]| specs.iter().map(|_| None).collect();
        let copied_event = driver.create_event()?;
        let done_event = driver.create_event().inspect_err(|_| driver.destroy_event(copied_event))?;
        let (inputs, outputs) = (none(inputs), none(outputs));
        Ok(RunSlot {
            free: true,
            inputs,
            outputs,
            bound: Vec::new(),
            copied_event,
            done_event,
            driver: driver.clone(),
        })
    }

    /// Makes every slab large enough. Bindings to slabs that were too small are dropped.
    pub(super) fn make_room(
        &mut self,
        signature: &Signature,
        on_device: &[bool],
        shapes: &BoundShapes,
    ) -> Result<()> {
        let inputs =
            shapes.inputs.iter().zip(on_device).map(|(shape, &on_device)| on_device.then_some(*shape));
        let inputs = signature.inputs.iter().zip(inputs).zip(&mut self.inputs);
        let outputs = signature.outputs.iter().zip(shapes.outputs.iter().copied()).zip(&mut self.outputs);
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

    /// Binds the slabs as tensors of these shapes.
    pub(super) fn bind(
        &self,
        session: &Session,
        memory: &MemoryInfo,
        on_device: &[bool],
        shapes: BoundShapes,
    ) -> Result<BoundRun> {
        let library = session.library;
        let io = IoBinding::new(session)?;
        let mut values = Vec::new();
        let specs = session.signature();
        for (index, (shape, spec)) in shapes.inputs.iter().zip(&specs.inputs).enumerate() {
            if !on_device[index] {
                // Each run binds it again, in the host's memory.
                continue;
            }
            let slab = self.inputs[index].as_ref().ok_or_else(unbound)?;
            let value = value_over(library, memory, slab, spec, shape)?;
            // SAFETY: the value was made in the line above.
            unsafe { io.bind_input(session, index, value.raw.as_ptr())? };
            values.push(value);
        }
        for (index, (shape, spec)) in shapes.outputs.iter().zip(&specs.outputs).enumerate() {
            let Some(shape) = shape else {
                io.leave_output(session, index)?;
                continue;
            };
            let slab = self.outputs[index].as_ref().ok_or_else(unbound)?;
            let value = value_over(library, memory, slab, spec, shape)?;
            io.bind_output(session, index, &value)?;
            values.push(value);
        }
        Ok(BoundRun { shapes, io, _values: values })
    }
}

impl Drop for RunSlot {
    fn drop(&mut self) {
        self.driver.destroy_event(self.copied_event);
        self.driver.destroy_event(self.done_event);
    }
}

/// A value over a slab.
fn value_over(
    library: &'static Library,
    memory: &MemoryInfo,
    slab: &Slab,
    spec: &TensorSpec,
    shape: &Shape,
) -> Result<OwnedValue> {
    let bytes = shape.count() * spec.datatype.size().unwrap_or(0);
    let mut raw = null_mut();
    // SAFETY: the slab holds `bytes` of that memory and outlives its bindings; the shape is `rank` numbers.
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
    OwnedValue::new(library, raw)
}
