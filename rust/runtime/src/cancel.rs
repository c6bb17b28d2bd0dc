//! Cancelling a call into the runtime: a run whose client has left, or a load that takes too long.
//!
//! A thread opens a [`CancelScope`] before a call that can be cancelled. Other threads have its [`CancelToken`], and may cancel it.
//! The runtime checks between two nodes of a graph, and between two steps of a load: a loop ends at once, but one long product of
//! matrices does not.
//!
//! Not here: when something is cancelled (`headgate-engine`). Next: `cancel::state`.
#![allow(unsafe_code, reason = "the options of a run are the runtime's")]

mod state;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtRunOptions, OrtSessionOptions};

use crate::api::Api;
use state::{CallEntry, CancelState};

/// The part of a thread that cancelling threads use.
struct SharedThread {
    state: CancelState,
    /// The call in progress. Valid from before the call is entered until after it is left.
    target: AtomicPtr<CallTarget>,
}

/// The call that the runtime must end.
#[derive(Clone, Copy)]
struct CallTarget {
    api: Api,
    call: CallOptions,
}

#[derive(Clone, Copy)]
enum CallOptions {
    Run(NonNull<OrtRunOptions>),
    Load(NonNull<OrtSessionOptions>),
}

/// The state of the calling thread.
struct CallingThread {
    thread: Arc<SharedThread>,
    /// The options of its runs, one for each library.
    options: RefCell<Vec<ThreadRunOptions>>,
}

thread_local! {
    static CALLING_THREAD: CallingThread = CallingThread {
        thread: Arc::new(SharedThread { state: CancelState::new(), target: AtomicPtr::new(null_mut()) }),
        options: RefCell::default(),
    };
}

/// Work of the calling thread that other threads may cancel, until this is dropped. A thread has one scope at a time.
pub struct CancelScope {
    number: u64,
    /// Keeps the scope on its thread.
    _here: PhantomData<*const ()>,
}

impl CancelScope {
    /// Begins a piece of work.
    pub fn begin() -> CancelScope {
        CancelScope { number: CALLING_THREAD.with(|here| here.thread.state.begin()), _here: PhantomData }
    }

    /// The token that cancels the scope.
    pub fn token(&self) -> CancelToken {
        CancelToken { thread: CALLING_THREAD.with(|here| here.thread.clone()), number: self.number }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        CALLING_THREAD.with(|here| here.thread.state.is_cancelled(self.number))
    }
}

impl Drop for CancelScope {
    fn drop(&mut self) {
        CALLING_THREAD.with(|here| here.thread.state.end());
    }
}

/// Cancels one [`CancelScope`], from any thread. It does nothing after the end of the scope.
#[derive(Clone)]
pub struct CancelToken {
    thread: Arc<SharedThread>,
    number: u64,
}

impl CancelToken {
    /// Ends the call in the scope, and refuses further calls there. Returns false if the scope is over.
    pub fn cancel(&self) -> bool {
        self.thread.state.cancel(self.number, || {
            // SAFETY: the thread is in the call of the target, and waits for this function before it leaves the call.
            if let Some(target) = unsafe { self.thread.target.load(Relaxed).as_ref() } {
                target.set_flag(true);
            }
        })
    }

    /// Whether the scope is open and was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.thread.state.is_cancelled(self.number)
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A handle of a thread, with which its present scope can be cancelled.
#[derive(Clone)]
pub struct ThreadHandle(Arc<SharedThread>);

impl ThreadHandle {
    /// The calling thread.
    pub fn here() -> ThreadHandle {
        ThreadHandle(CALLING_THREAD.with(|here| here.thread.clone()))
    }

    /// The token of the scope that is open now.
    pub fn current(&self) -> Option<CancelToken> {
        Some(CancelToken { number: self.0.state.current()?, thread: self.0.clone() })
    }
}

impl std::fmt::Debug for ThreadHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Worker").field(&self.0.state.current()).finish()
    }
}

impl CallTarget {
    fn set_flag(&self, cancelled: bool) {
        // SAFETY: the options live as long as their call; the runtime's flags are atomic.
        let status = unsafe {
            match (self.call, cancelled) {
                (CallOptions::Run(options), true) => (self.api.RunOptionsSetTerminate)(options.as_ptr()),
                (CallOptions::Run(options), false) => (self.api.RunOptionsUnsetTerminate)(options.as_ptr()),
                (CallOptions::Load(options), flag) => {
                    (self.api.SessionOptionsSetLoadCancellationFlag)(options.as_ptr(), flag)
                }
            }
        };
        // Setting a flag fails for a null pointer only.
        let _ = self.api.check(status, Code::Internal);
    }
}

/// Options of a thread's runs, with the flag that ends a run.
struct ThreadRunOptions {
    api: Api,
    raw: NonNull<OrtRunOptions>,
}

impl ThreadRunOptions {
    fn new(api: Api) -> Result<ThreadRunOptions> {
        let mut raw = null_mut();
        // SAFETY: the out-pointer is valid.
        api.check(unsafe { (api.CreateRunOptions)(&mut raw) }, Code::Internal)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(Code::Internal, "no options for a run"))?;
        Ok(ThreadRunOptions { api, raw })
    }
}

impl Drop for ThreadRunOptions {
    fn drop(&mut self) {
        // SAFETY: created above, released once, by the thread whose runs are over.
        unsafe { (self.api.ReleaseRunOptions)(self.raw.as_ptr()) }
    }
}

/// Calls the runtime for a run. `call` gets the options to run with.
pub(crate) fn run(api: Api, call: impl FnOnce(*const OrtRunOptions) -> Result<()>) -> Result<()> {
    CALLING_THREAD.with(|here| {
        let options = here.options_of(api)?;
        here.call_cancellable(CallTarget { api, call: CallOptions::Run(options) }, || call(options.as_ptr()))
    })
}

/// Calls the runtime for a load with these options.
pub(crate) fn load(
    api: Api,
    options: NonNull<OrtSessionOptions>,
    call: impl FnOnce() -> Result<()>,
) -> Result<()> {
    CALLING_THREAD
        .with(|here| here.call_cancellable(CallTarget { api, call: CallOptions::Load(options) }, call))
}

impl CallingThread {
    fn options_of(&self, api: Api) -> Result<NonNull<OrtRunOptions>> {
        let mut all = self.options.borrow_mut();
        if let Some(options) = all.iter().find(|options| options.api == api) {
            return Ok(options.raw);
        }
        let options = ThreadRunOptions::new(api)?;
        let raw = options.raw;
        all.push(options);
        Ok(raw)
    }

    /// Makes a call that other threads may cancel. A call that was cancelled and succeeded nevertheless is a success.
    fn call_cancellable(&self, mut target: CallTarget, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let SharedThread { state, target: known } = &*self.thread;
        known.store(&raw mut target, Relaxed);
        match state.enter() {
            CallEntry::Outside => call(),
            CallEntry::Cancelled => Err(cancelled_error()),
            CallEntry::Inside => {
                let result = call();
                if !state.leave() {
                    return result;
                }
                target.set_flag(false);
                result.map_err(|_| cancelled_error())
            }
        }
    }
}

/// Checks whether the calling thread's scope was cancelled.
///
/// # Errors
/// `cancelled` if it was cancelled.
pub fn check() -> Result<()> {
    CALLING_THREAD.with(|here| {
        let state = &here.thread.state;
        let cancelled_now = state.current().is_some_and(|number| state.is_cancelled(number));
        if cancelled_now { Err(cancelled_error()) } else { Ok(()) }
    })
}

/// The error of a call that was cancelled.
fn cancelled_error() -> Error {
    Error::new(Code::Cancelled, "it was cancelled")
}
