//! The contract of what computes, and a handle that keeps it in memory.
//!
//! Next: `constant`, `device`.
#![allow(unsafe_code, reason = "a run in the air reads and writes buffers that somebody else holds")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Signature;
use headgate_runtime::device::{Driver, InFlightRun};
use headgate_runtime::{Binding, Library, Session};

/// Whatever turns inputs into outputs: an ONNX Runtime session, a constant, a test's probe.
pub trait Executable: Send + Sync + 'static {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// What it declares and does not offer, if anything, in words.
    fn remark(&self) -> Option<&str> {
        None
    }

    /// Computes the outputs of the inputs in `binding`, which has the signature's tensors. May run on many threads at once.
    ///
    /// # Errors
    /// `backend_failed`, whoever is at fault: nobody can tell from one run. `overloaded` for want of memory.
    fn run(&self, binding: &mut Binding) -> Result<()>;

    /// Finds out which outputs may have buffers before a run, by runs over the inputs in `binding`, which it takes.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        let _ = binding;
        Ok(())
    }

    /// How many of it compute at the same time on threads of their own; 0 where it computes on whatever thread asks.
    fn instances(&self) -> usize {
        0
    }

    /// Whose memory its buffers are best made of.
    fn driver(&self) -> Option<&Arc<dyn Driver>> {
        None
    }

    /// Begins to compute on the thread of an instance what [`Executable::finish`] ends.
    ///
    /// # Errors
    /// As [`Executable::run`]; then nothing is in the air.
    ///
    /// # Safety
    /// Nobody touches or drops `binding` before [`Executable::finish`] got the flight.
    unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        let _ = instance;
        self.run(binding).map(|()| InFlightRun::FINISHED)
    }

    /// Held while it is warmed, where others of its kind must not be made or freed meanwhile.
    fn lock_exclusive(&self) -> Option<MutexGuard<'_, ()>> {
        None
    }

    /// Waits for the end of a run; the outputs are in `binding` then.
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

/// An executable that stays in memory for as long as this lives, and what its buffers are made with.
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

    /// What computes.
    pub(crate) fn executable(&self) -> &dyn Executable {
        &*self.executable
    }

    /// What it takes and gives.
    pub(crate) fn signature(&self) -> &Signature {
        self.executable.signature()
    }

    /// Buffers for one run.
    pub(crate) fn new_binding(&self) -> Binding {
        Binding::with_driver(self.executable.driver(), self.library, self.executable.signature())
    }

    /// Computes; a panic inside becomes an error.
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

    /// Computes on the thread of an instance, or on any.
    ///
    /// # Errors
    /// As [`ExecutableHandle::execute`].
    pub(crate) fn execute_on(&self, instance: Option<usize>, binding: &mut Binding) -> Result<()> {
        let Some(instance) = instance else { return self.execute(binding) };
        // SAFETY: finished in the next line.
        let flight = unsafe { self.begin(instance, binding)? };
        self.finish(instance, flight, binding)
    }
}

/// What computes on the thread of an instance. A panic costs the buffers and leaves them where they are: something may still
/// write there.
impl ExecutableHandle {
    /// As [`Executable::begin`].
    ///
    /// # Safety
    /// As [`Executable::begin`].
    pub(crate) unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        // SAFETY: the caller's promise.
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
