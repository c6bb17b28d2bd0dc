//! The buffers of one run, leased from a model: they are filled, run, read, and given back when the lease is dropped.
//!
//! Next: `submit`.
#![allow(unsafe_code, reason = "a run in flight reads and writes buffers that another owner holds")]

use std::any::Any;
use std::sync::Arc;

use headgate_core::error::{Code, Result};
use headgate_core::tensor::Signature;
use headgate_runtime::device::InFlightRun;
use headgate_runtime::{Binding, TensorView};

use crate::compute::ExecutableHandle;
use crate::models::{LoadedModel, Model};

/// The buffers of one run, leased from a model.
pub struct BufferLease {
    model: Arc<Model>,
    /// Holds the model in memory; `None` once the buffers are detached and do not need it.
    executable: Option<ExecutableHandle>,
    /// The pool that the buffers return to.
    pool: usize,
    /// Whether a thread of low priority may drop the lease.
    is_detached: bool,
    /// In a box, because a lease is moved from phase to phase.
    binding: Option<Box<Binding>>,
    /// What must live as long as the buffers are in use. Dropped after the binding.
    attached: Option<Box<dyn Any + Send + Sync>>,
}

impl BufferLease {
    /// Leases free buffers of IO thread `thread`, or new ones.
    pub fn acquire(loaded: LoadedModel, thread: usize) -> BufferLease {
        let threads = loaded.io_threads();
        // A division takes longer than the rest, and hardly ever is one needed.
        let pool = if thread < threads { thread } else { thread % threads };
        BufferLease::from_pool(loaded, pool)
    }

    /// Leases buffers for a run that no request waits for, so that requests find theirs.
    pub fn acquire_separate(loaded: LoadedModel) -> BufferLease {
        let pool = loaded.io_threads();
        BufferLease::from_pool(loaded, pool)
    }

    fn from_pool(loaded: LoadedModel, pool: usize) -> BufferLease {
        let binding = loaded.take_binding(pool);
        let (model, executable) = loaded.into_parts();
        let executable = Some(executable);
        BufferLease { model, executable, pool, is_detached: false, binding: Some(binding), attached: None }
    }

    /// Keeps `guard` alive for as long as the buffers are in use, in place of what was attached before.
    pub fn attach(&mut self, guard: Option<Box<dyn Any + Send + Sync>>) {
        self.attached = guard;
    }

    /// For an owner that keeps the buffers after the response: drops what was attached, and lets the model leave memory unless it made the
    /// outputs. The buffers return to a part of their pool in which a thread of low priority makes no IO thread wait.
    pub(super) fn detach(&mut self) {
        self.attached = None;
        self.model.prepare_remote(self.pool);
        self.is_detached = true;
        if !self.binding().has_allocated_outputs() {
            self.executable = None;
        }
    }

    /// Returns the buffers to the part of their pool in which requests look first.
    pub(super) fn recycle(mut self) {
        self.is_detached = false;
    }

    /// The model that they belong to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tensors.
    pub fn binding(&self) -> &Binding {
        self.binding.as_ref().expect("a lease holds its binding until it is dropped")
    }

    /// The tensors, to be filled.
    pub fn binding_mut(&mut self) -> &mut Binding {
        self.binding.as_mut().expect("a lease holds its binding until it is dropped")
    }

    /// The signature and its tensors.
    pub fn signature_and_binding(&mut self) -> (&Signature, &mut Binding) {
        let BufferLease { model, binding, .. } = self;
        let binding = binding.as_mut().expect("a lease holds its binding until it is dropped");
        (model.signature(), binding)
    }

    fn executable_and_binding(&mut self) -> (&ExecutableHandle, &mut Binding) {
        let BufferLease { executable, binding, .. } = self;
        let executable = executable.as_ref().expect("only a lease that was not detached is run");
        (executable, binding.as_mut().expect("a lease holds its binding until it is dropped"))
    }

    /// Makes the elements of an input those of `view`, with its shape.
    ///
    /// # Errors
    /// As [`headgate_runtime::Tensor::copy_from`].
    pub fn set_input(&mut self, index: usize, view: &TensorView<'_>) -> Result<()> {
        self.binding_mut().input_mut(index).copy_from(view)
    }

    /// As [`BufferLease::set_input`], for an optional input, which is then part of the run.
    ///
    /// # Errors
    /// As [`BufferLease::set_input`].
    pub fn set_optional_input(&mut self, index: usize, view: &TensorView<'_>) -> Result<()> {
        self.binding_mut().optional_input_mut(index).copy_from(view)
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// `internal` if there was none.
    pub fn output(&self, index: usize) -> Result<TensorView<'_>> {
        self.binding().output(index)
    }

    /// Runs the model over the inputs. A panic inside becomes an error and costs the buffers.
    ///
    /// # Errors
    /// As [`Executable::run`]; `internal` after a panic.
    pub fn run(&mut self) -> Result<()> {
        let (executable, binding) = self.executable_and_binding();
        let result = executable.execute(binding);
        if result.as_ref().is_err_and(|error| error.code == Code::Internal) {
            // After a panic the contents of the buffers are unknown.
            *binding = executable.new_binding();
        }
        result
    }
}

/// Runs on the thread of an instance of a device.
impl BufferLease {
    /// Begins to run over the inputs.
    ///
    /// # Errors
    /// As [`Executable::run`].
    ///
    /// # Safety
    /// The lease must not be dropped or read before [`BufferLease::finish`] got the flight.
    pub(crate) unsafe fn begin(&mut self, instance: usize) -> Result<InFlightRun> {
        let (executable, binding) = self.executable_and_binding();
        // SAFETY: the caller keeps the contract, and the binding lies in the lease.
        unsafe { executable.begin(instance, binding) }
    }

    /// Waits for the end of a run.
    ///
    /// # Errors
    /// As [`Executable::run`].
    pub(crate) fn finish(&mut self, instance: usize, flight: InFlightRun) -> Result<()> {
        let (executable, binding) = self.executable_and_binding();
        executable.finish(instance, flight, binding)
    }

    /// Runs on the thread of an instance, or on the calling thread if `instance` is `None`.
    ///
    /// # Errors
    /// As [`BufferLease::run`].
    pub(crate) fn run_on(&mut self, instance: Option<usize>) -> Result<()> {
        let Some(instance) = instance else { return self.run() };
        // SAFETY: the next line finishes it.
        let flight = unsafe { self.begin(instance)? };
        self.finish(instance, flight)
    }
}

impl Drop for BufferLease {
    fn drop(&mut self) {
        let Some(mut binding) = self.binding.take() else { return };
        binding.forget();
        if self.is_detached {
            self.model.give_binding_remote(binding, self.pool);
        } else {
            self.model.give_binding(binding, self.pool);
        }
    }
}
