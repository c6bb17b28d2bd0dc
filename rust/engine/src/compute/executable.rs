//! What an executable must offer, and a handle that keeps one in memory.
//!
//! Next: `constant`, `device`.
#![allow(unsafe_code, reason = "a run in flight reads and writes buffers that another owner holds")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Signature;
use headgate_runtime::device::{Driver, InFlightRun};
use headgate_runtime::{Binding, Library, Session};

/// What turns inputs into outputs: a session of ONNX Runtime, a constant, a test's double.
pub trait Executable: Send + Sync + 'static {
    /// Its inputs and outputs.
    fn signature(&self) -> &Signature;

    /// What it declares and does not offer, in words; `None` if it offers all.
    fn remark(&self) -> Option<&str> {
        None
    }

    /// Computes outputs from the inputs in `binding`, which has the tensors of the signature. May run on many threads at once.
    ///
    /// # Errors
    /// `backend_failed`, even if the inputs are at fault, because one run cannot tell. `overloaded` if memory is missing.
    fn run(&self, binding: &mut Binding) -> Result<()>;

    /// Finds out which outputs may have buffers before a run, by runs over the inputs in `binding`, which it must accept.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        let _ = binding;
        Ok(())
    }

    /// How many instances compute at the same time on threads of their own; 0 if it computes on the calling thread.
    fn instances(&self) -> usize {
        0
    }

    /// The driver of the device whose memory its buffers should be in.
    fn driver(&self) -> Option<&Arc<dyn Driver>> {
        None
    }

    /// Begins a run on the thread of an instance. [`Executable::finish`] ends it.
    ///
    /// # Errors
    /// As [`Executable::run`]. Then nothing is in flight.
    ///
    /// # Safety
    /// `binding` must not be touched or dropped before [`Executable::finish`] got the flight.
    unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        let _ = instance;
        self.run(binding).map(|()| InFlightRun::FINISHED)
    }

    /// A lock for its warm-up, if other sessions must not be made or freed during it.
    fn lock_exclusive(&self) -> Option<MutexGuard<'_, ()>> {
        None
    }

    /// Waits for the end of a run. Then the outputs are in `binding`.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn finish(&self, instance: usize, flight: InFlightRun, binding: &mut Binding) -> Result<()> {
        let _ = (instance, flight, binding);
        Ok(())
    }
}

impl Executable for Session {
    fn signature(&self) -> &Signature {
        Session::signature(self)
    }

    fn remark(&self) -> Option<&str> {
        Session::remark(self)
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        binding.run(self)
    }

    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        binding.check_outputs(self)
    }
}

/// Keeps an executable in memory for as long as it lives, and makes buffers for it.
#[derive(Clone)]
pub(crate) struct ExecutableHandle {
    executable: Arc<dyn Executable>,
    library: &'static Library,
}

impl ExecutableHandle {
    /// Keeps an executable in memory.
    pub(crate) fn new(executable: Arc<dyn Executable>, library: &'static Library) -> ExecutableHandle {
        ExecutableHandle { executable, library }
    }

    /// The executable.
    pub(crate) fn get(&self) -> &dyn Executable {
        &*self.executable
    }

    /// Its inputs and outputs.
    pub(crate) fn signature(&self) -> &Signature {
        self.executable.signature()
    }

    /// Buffers for one run.
    pub(crate) fn new_binding(&self) -> Binding {
        Binding::with_driver(self.executable.driver(), self.library, self.executable.signature())
    }

    /// Computes. A panic inside becomes an error.
    ///
    /// # Errors
    /// As [`Executable::run`]; `internal` after a panic.
    pub(crate) fn execute(&self, binding: &mut Binding) -> Result<()> {
        let run = AssertUnwindSafe(|| self.executable.run(binding));
        catch_unwind(run).unwrap_or_else(|_| Err(panic_error()))
    }

    /// Computes for the first time, and finds out which outputs may have buffers before a run.
    ///
    /// # Errors
    /// As [`ExecutableHandle::execute`].
    pub(crate) fn execute_first(&self, binding: &mut Binding) -> Result<()> {
        self.execute(binding)?;
        self.executable.check_outputs(binding)
    }

    /// Computes on the thread of an instance, or on the calling thread if `instance` is `None`.
    ///
    /// # Errors
    /// As [`ExecutableHandle::execute`].
    pub(crate) fn execute_on(&self, instance: Option<usize>, binding: &mut Binding) -> Result<()> {
        let Some(instance) = instance else { return self.execute(binding) };
        // SAFETY: the next line finishes it.
        let flight = unsafe { self.begin(instance, binding)? };
        self.finish(instance, flight, binding)
    }
}

/// Runs on the thread of an instance. After a panic the buffers are leaked, because the device may still write to them.
impl ExecutableHandle {
    /// As [`Executable::begin`].
    ///
    /// # Safety
    /// As [`Executable::begin`].
    pub(crate) unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        // SAFETY: the caller keeps the contract of `begin`.
        self.catching_panics(binding, |executable, binding| unsafe { executable.begin(instance, binding) })
    }

    /// As [`Executable::finish`].
    pub(crate) fn finish(&self, instance: usize, flight: InFlightRun, binding: &mut Binding) -> Result<()> {
        self.catching_panics(binding, |executable, binding| executable.finish(instance, flight, binding))
    }

    fn catching_panics<T>(
        &self,
        binding: &mut Binding,
        work: impl FnOnce(&dyn Executable, &mut Binding) -> Result<T>,
    ) -> Result<T> {
        let run = AssertUnwindSafe(|| work(&*self.executable, binding));
        catch_unwind(run).unwrap_or_else(|_| {
            std::mem::forget(std::mem::replace(binding, self.new_binding()));
            Err(panic_error())
        })
    }
}

fn panic_error() -> Error {
    Error::new(Code::Internal, "the run panicked; this is a defect of Headgate")
}
