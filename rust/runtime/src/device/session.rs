//! One session on a device, with a stream to compute in and a stream to copy in. Each run in flight has a slot of its own, so that
//! the inputs of the next run are copied while this one computes.
//!
//! ```text
//! begin:   host --copy stream--> device slab --event--> compute stream: run, outputs --> host, event
//! finish:  wait for that event
//! ```
//! Inputs and outputs are bound once for each combination of shapes: batches are padded to a few sizes, so that they are rarely
//! bound again.

mod slot;

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};

use super::driver::Driver;
use super::io::{DeviceRunOptions, MemoryInfo, Streams, inputs_on_device};
use crate::binding::{Binding, may_preallocate};
use crate::library::Library;
use crate::output_check::{self, ObservedOutput};
use crate::session::{DeviceProvider, Session, SessionOptions};
use crate::shape_rule::Preallocation;
use crate::view::Elements;
use slot::{BoundShapes, RunSlot, unbound};

/// The most runs in flight, of all users of the session.
const MAX_SLOTS: usize = 8;
/// One of this many runs is synchronous: only then does the runtime free the host memory that its nodes have copied from.
const SYNCHRONOUS_EVERY: u64 = 64;
/// The most combinations of shapes that stay bound in a slot.
const MAX_BOUND_RUNS: usize = 16;

/// A session on a device.
pub struct DeviceSession {
    // Fields are dropped in this order: the bindings, then the session, then the streams that it computes in.
    slots: Vec<RunSlot>,
    session: Session,
    streams: Streams,
    /// The options of ordinary runs, and of synchronous runs.
    options: [DeviceRunOptions; 2],
    runs: u64,
    /// Whether the last run failed in the runtime, and not in the driver.
    run_failed: bool,
    memory: MemoryInfo,
    /// For each input, whether nodes read it on the device. Others are read in the host's memory.
    on_device: Vec<bool>,
    driver: Arc<dyn Driver>,
}

/// A run in flight. [`DeviceSession::finish`] ends it.
#[derive(Debug)]
pub struct InFlightRun {
    slot: usize,
    bound: usize,
}

impl InFlightRun {
    /// A run that is finished.
    pub const FINISHED: InFlightRun = InFlightRun { slot: 0, bound: 0 };
}

impl DeviceSession {
    /// Loads a model file.
    ///
    /// # Errors
    /// As [`Session::load`]; `model_load_failed` for strings, which stay on the host, for a model of which the device computes
    /// nothing, and if the driver or the provider is missing.
    pub fn load(
        library: &'static Library,
        driver: Arc<dyn Driver>,
        path: &std::path::Path,
        options: SessionOptions,
    ) -> Result<DeviceSession> {
        driver.make_current()?;
        let streams = Streams::new(&driver)?;
        let provider = DeviceProvider { driver: &*driver, stream: streams.compute };
        let mut session = Session::load_with(library, path, options, Some(&provider))?;
        session.withhold_optional_inputs("a device takes none");
        let Signature { inputs, outputs, .. } = session.signature();
        if let Some(strings) = inputs.iter().chain(outputs).find(|spec| spec.datatype == DataType::Bytes) {
            return Err(Error::new(
                Code::ModelLoadFailed,
                format!("{:?} holds strings, which stay on the host: leave run.device out", strings.name),
            ));
        }
        let on_device = inputs_on_device(&session, &*driver)?;
        if !on_device.is_empty() && !on_device.contains(&true) {
            return Err(Error::new(
                Code::ModelLoadFailed,
                "the device computes nothing of its inputs: it has no such operators; leave run.device out",
            ));
        }
        let slots = vec![RunSlot::new(&driver, inputs, outputs)?];
        let options = [DeviceRunOptions::new(library, false)?, DeviceRunOptions::new(library, true)?];
        let memory = MemoryInfo::new(library, &*driver)?;
        Ok(DeviceSession {
            slots,
            session,
            streams,
            options,
            runs: 0,
            run_failed: false,
            memory,
            on_device,
            driver,
        })
    }

    /// The model's inputs and outputs.
    pub fn signature(&self) -> &Signature {
        self.session.signature()
    }

    /// The signature, and the note about optional inputs that are not offered.
    pub fn described(&self) -> (Signature, Option<String>) {
        (self.session.signature().clone(), self.session.remark().map(str::to_owned))
    }

    /// Runs the model and waits for the end.
    ///
    /// # Errors
    /// As [`DeviceSession::begin`] and [`DeviceSession::finish`].
    pub fn run(&mut self, binding: &mut Binding) -> Result<()> {
        // SAFETY: the next line finishes the run.
        let flight = unsafe { self.begin(binding)? };
        self.finish(flight, binding)
    }

    /// Begins a run: enqueues the copies to the device, the run, and the copies to the host, and waits for none of them.
    ///
    /// # Errors
    /// `overloaded` if all slots are in use or the device has no memory left; `backend_failed`. Then no run is in flight.
    ///
    /// # Safety
    /// No code touches or drops `binding` before [`DeviceSession::finish`] returns.
    pub unsafe fn begin(&mut self, binding: &mut Binding) -> Result<InFlightRun> {
        self.driver.make_current()?;
        let slot = self.free_slot()?;
        let begun = self.launch(slot, binding, Preallocation::Proven, &[]);
        let Err(error) = begun else { return begun };
        // Work that was enqueued before the failure still reads the slabs and writes to the binding.
        self.wait_until_idle(slot);
        let outputs = self.predicted(&binding.input_shapes(), Preallocation::Proven);
        if !self.run_failed || error.code != Code::BackendFailed || outputs.iter().all(Option::is_none) {
            return Err(error);
        }
        // An output may have another size than the model declares. The runtime allocates outputs from now on.
        let again = self.launch(slot, binding, Preallocation::Nothing, &[]);
        match again {
            Ok(_) => self.session.rules.mark_all_wrong(),
            // The buffers were not the cause.
            Err(_) => self.wait_until_idle(slot),
        }
        again.map_err(|_| error)
    }

    fn free_slot(&mut self) -> Result<usize> {
        if let Some(free) = self.slots.iter().position(|slot| slot.free) {
            return Ok(free);
        }
        if self.slots.len() == MAX_SLOTS {
            return Err(Error::new(Code::Overloaded, "all slots of the device are taken"));
        }
        let Signature { inputs, outputs, .. } = self.session.signature();
        self.slots.push(RunSlot::new(&self.driver, inputs, outputs)?);
        Ok(self.slots.len() - 1)
    }

    /// Proves by runs which outputs may be in our slabs, unless it is known.
    ///
    /// # Errors
    /// As [`DeviceSession::run`].
    pub fn check_outputs(&mut self, binding: &mut Binding) -> Result<()> {
        let rules = self.session.rules.clone();
        output_check::prove_rules(&rules, |preallocation, pattern| {
            let shapes = binding.input_shapes();
            let outputs = self.predicted(&shapes, preallocation);
            let specs = &self.session.signature().outputs;
            let sizes = outputs.iter().zip(specs).map(|(shape, spec)| {
                shape.map_or(0, |shape| shape.count() * spec.datatype.size().unwrap_or(0))
            });
            let fill = vec![pattern; sizes.max().unwrap_or(0)];
            let slot = self.free_slot()?;
            self.driver.make_current()?;
            let begun = self.launch(slot, binding, preallocation, &fill);
            let flight = begun.inspect_err(|_| self.wait_until_idle(slot))?;
            self.finish(flight, binding)?;
            let predicted = self.predicted(&shapes, Preallocation::Unproven);
            let found = outputs.iter().zip(predicted).enumerate().map(|(index, (ours, predicted))| {
                let view = binding.output(index)?;
                let Elements::Bytes(bytes) = view.data else { return Err(unbound()) };
                Ok(ObservedOutput {
                    shape: view.shape.to_shape(),
                    bytes: bytes.to_vec(),
                    predicted,
                    is_preallocated: ours.is_some(),
                })
            });
            found.collect()
        })
    }

    /// The predicted shape of each output that gets a slab, for inputs of these shapes.
    fn predicted(&self, inputs: &[Shape], preallocation: Preallocation) -> Vec<Option<Shape>> {
        let one = |(index, spec): (usize, &TensorSpec)| {
            let shape = self.session.rules.shape(index, preallocation, |input| &inputs[input])?;
            may_preallocate(spec.datatype, &shape).then_some(shape)
        };
        self.session.signature().outputs.iter().enumerate().map(one).collect()
    }

    /// Begins a run in a slot. The slabs of the outputs have the bytes of `fill` before the run.
    fn launch(
        &mut self,
        slot: usize,
        binding: &mut Binding,
        preallocation: Preallocation,
        fill: &[u8],
    ) -> Result<InFlightRun> {
        self.run_failed = false;
        binding.check_inputs()?;
        let flight = InFlightRun { slot, bound: self.bind(slot, binding, preallocation)? };
        self.copy_in(&flight, binding, fill)?;
        self.slots[slot].free = false;
        self.enqueue(&flight)?;
        self.copy_out(&flight, binding)?;
        Ok(flight)
    }

    /// Enqueues the copies of the inputs, and of `fill` into the slabs of the outputs. The compute stream waits for them.
    fn copy_in(&self, flight: &InFlightRun, binding: &Binding, fill: &[u8]) -> Result<()> {
        let (driver, streams) = (&*self.driver, &self.streams);
        let slot = &self.slots[flight.slot];
        let bound = &slot.bound[flight.bound];
        for (index, slab) in slot.inputs.iter().enumerate() {
            let input = binding.input(index);
            if !self.on_device[index] {
                // SAFETY: the input has a shape, and the caller does not touch the binding until the run is over.
                unsafe { bound.io.bind_input(&self.session, index, input.raw())? };
                continue;
            }
            let (start, bytes) = input.memory();
            let slab = slab.as_ref().ok_or_else(unbound)?;
            if bytes == 0 {
                continue;
            }
            // SAFETY: the slab was made for an input of this shape; the caller does not touch the binding.
            unsafe { driver.copy_in(slab.start(), start, bytes, streams.copy)? };
        }
        for (slab, shape) in slot.outputs.iter().zip(&bound.shapes.outputs) {
            let (Some(slab), Some(_)) = (slab, shape) else { continue };
            let bytes = slab.bytes().min(fill.len());
            if bytes > 0 {
                // SAFETY: as above; `fill` outlives the run, because the caller of `launch` waits for the end.
                unsafe { driver.copy_in(slab.start(), fill.as_ptr(), bytes, streams.copy)? };
            }
        }
        driver.record(slot.copied_event, streams.copy)?;
        driver.wait(streams.compute, slot.copied_event)
    }

    /// Enqueues the run in the compute stream.
    fn enqueue(&mut self, flight: &InFlightRun) -> Result<()> {
        let bound = &self.slots[flight.slot].bound[flight.bound];
        for (index, shape) in bound.shapes.outputs.iter().enumerate() {
            if shape.is_none() {
                // The output of the previous run is still bound here.
                bound.io.leave_output(&self.session, index)?;
            }
        }
        self.runs += 1;
        let options = &self.options[usize::from(self.runs.is_multiple_of(SYNCHRONOUS_EVERY))];
        let result = bound.io.run(&self.session, options);
        self.run_failed = result.is_err();
        result
    }

    /// Enqueues the copies of the outputs in our slabs to the host.
    fn copy_out(&self, flight: &InFlightRun, binding: &mut Binding) -> Result<()> {
        let (driver, streams) = (&*self.driver, &self.streams);
        let slot = &self.slots[flight.slot];
        for (index, shape) in slot.bound[flight.bound].shapes.outputs.iter().enumerate() {
            let Some(shape) = shape else { continue };
            let tensor = binding.output_mut(index);
            tensor.reshape(shape)?;
            let into = tensor.bytes_mut().ok_or_else(unbound)?;
            let slab = slot.outputs[index].as_ref().ok_or_else(unbound)?;
            if into.is_empty() {
                continue;
            }
            // SAFETY: the slab holds an output of this shape; the caller does not touch the binding until the run is over.
            unsafe { driver.copy_out(into.as_mut_ptr(), slab.start(), into.len(), streams.compute)? };
        }
        driver.record(slot.done_event, streams.compute)
    }

    /// Waits for the end of a run. The outputs are then in `binding`.
    ///
    /// # Errors
    /// `backend_failed`.
    pub fn finish(&mut self, flight: InFlightRun, binding: &mut Binding) -> Result<()> {
        let InFlightRun { slot, bound } = flight;
        let slot = &mut self.slots[slot];
        slot.free = true;
        self.driver.make_current()?;
        self.driver.synchronize(slot.done_event)?;
        let bound = &slot.bound[bound];
        if bound.shapes.outputs.iter().any(Option::is_none) {
            let values = bound.io.outputs(self.session.library)?;
            for (index, value) in values.into_iter().enumerate() {
                if bound.shapes.outputs[index].is_none() {
                    binding.set_allocated_output(index, value);
                }
            }
        }
        Ok(())
    }

    /// Waits until all enqueued work of a slot is done.
    fn wait_until_idle(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        for stream in [self.streams.copy, self.streams.compute] {
            // A device that fails here fails in the next run too.
            drop(
                self.driver
                    .record(slot.done_event, stream)
                    .and_then(|()| self.driver.synchronize(slot.done_event)),
            );
        }
        slot.free = true;
    }

    /// The index of the slot's bound run for inputs of these shapes. It is made if there is none.
    fn bind(&mut self, slot: usize, binding: &Binding, preallocation: Preallocation) -> Result<usize> {
        let inputs = binding.input_shapes();
        let outputs = self.predicted(&inputs, preallocation);
        let shapes = BoundShapes { inputs, outputs };
        let slot = &mut self.slots[slot];
        if let Some(at) = slot.bound.iter().position(|bound| bound.shapes == shapes) {
            return Ok(at);
        }
        slot.make_room(self.session.signature(), &self.on_device, &shapes)?;
        let bound = slot.bind(&self.session, &self.memory, &self.on_device, shapes)?;
        if slot.bound.len() == MAX_BOUND_RUNS {
            slot.bound.remove(0);
        }
        slot.bound.push(bound);
        Ok(slot.bound.len() - 1)
    }
}
