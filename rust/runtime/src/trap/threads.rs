//! The marks of threads, and the threads that the runtime makes for a session.
//!
//! A session with one thread runs on its caller's thread, so that the caller's mark is the mark of the run. With more threads, the
//! runtime makes its own for the session. A division on one of them may belong to any run of the session, so that all runs in
//! progress fail. The runtime makes these threads through `create_thread`, so that each knows its session from the beginning.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::JoinHandle;

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtCustomThreadHandle, OrtThreadWorkerFn};

/// Divisions that were stepped over since the process began.
pub(super) static STEPPED_OVER: AtomicU64 = AtomicU64::new(0);

/// Divisions by zero, or of the lowest value by -1, that were stepped over since the process began; the run of each has failed.
pub fn stepped_over() -> u64 {
    STEPPED_OVER.load(Relaxed)
}

thread_local! {
    // None has a constructor or a destructor, so that a signal handler may touch them. They are in a library that is opened at run
    // time, so that a thread's first touch allocates. That is safe here: a division never traps within malloc.
    static MARKED: AtomicBool = const { AtomicBool::new(false) };
    static IN_PREVIOUS: AtomicBool = const { AtomicBool::new(false) };
    static SESSION: Cell<*const AtomicU64> = const { Cell::new(null()) };
}

/// Marks this thread, and its session if the runtime made the thread for one.
#[cfg(target_arch = "x86_64")]
pub(super) fn mark() {
    MARKED.with(|marked| marked.store(true, Relaxed));
    // SAFETY: null, or the count of a session that joins this thread before it ends.
    if let Some(divisions) = unsafe { SESSION.get().as_ref() } {
        divisions.fetch_add(1, SeqCst);
    }
}

/// Returns whether this thread was marked, and removes the mark.
pub(super) fn take_mark() -> bool {
    MARKED.with(|marked| {
        let was = marked.load(Relaxed);
        if was {
            marked.store(false, Relaxed);
        }
        was
    })
}

/// Whether this thread is in the previous handler.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_in_previous() -> bool {
    IN_PREVIOUS.with(|passing| passing.load(Relaxed))
}

/// Sets whether this thread is in the previous handler.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_in_previous(passing: bool) {
    IN_PREVIOUS.with(|now| now.store(passing, Relaxed));
}

/// The threads of a session: the caller's alone, or also those that the runtime made for it.
#[derive(Default)]
pub(crate) struct SessionThreads {
    /// Divisions that were stepped over on the runtime's threads for the session. `None` if there are no such threads.
    divisions: Option<Arc<AtomicU64>>,
}

impl SessionThreads {
    /// The threads of a session with this number of threads, the caller's included. With 0 the runtime chooses the number.
    pub(crate) fn new(intra_threads: u16) -> SessionThreads {
        SessionThreads { divisions: (intra_threads != 1).then(Arc::default) }
    }

    /// The options that the runtime passes to [`create_thread`]. `None` if it creates no threads.
    pub(crate) fn creation_options(&self) -> Option<*mut c_void> {
        self.divisions.as_ref().map(|divisions| Arc::as_ptr(divisions).cast_mut().cast())
    }

    /// Calls the runtime. Fails if a division was stepped over during the call.
    pub(crate) fn call_guarded(&self, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.divisions.as_ref().map(|divisions| divisions.load(SeqCst));
        let result = call();
        let elsewhere = self.divisions.as_ref().map(|divisions| divisions.load(SeqCst)) != before;
        if take_mark() || elsewhere { Err(division_error()) } else { result }
    }
}

/// The error of a call into the runtime in which a division was stepped over.
fn division_error() -> Error {
    let words = "the model divides an integer by zero, or the lowest integer by -1, which has no result";
    Error::new(Code::BackendFailed, words)
}

/// Makes a thread for the runtime, which knows its session before it does anything else.
pub(crate) unsafe extern "C" fn create_thread(
    divisions: *mut c_void,
    work: OrtThreadWorkerFn,
    argument: *mut c_void,
) -> OrtCustomThreadHandle {
    /// Pointers that move to the thread.
    struct ThreadStart(*const AtomicU64, *mut c_void);
    // SAFETY: the session's count outlives the session, which joins the thread; the argument is made for this thread by the runtime.
    unsafe impl Send for ThreadStart {}
    let start = ThreadStart(divisions.cast(), argument);
    let spawned = std::thread::Builder::new().name("hg-intra".to_owned()).spawn(move || {
        let ThreadStart(divisions, argument) = { start };
        SESSION.set(divisions);
        take_mark();
        // SAFETY: the runtime's own function with the argument that it handed in for it.
        unsafe { work(argument) };
    });
    // Null tells the runtime that there is no thread, so that the load fails.
    spawned.map_or(null(), |thread| Box::into_raw(Box::new(thread)).cast_const().cast())
}

/// Waits for the end of a thread that [`create_thread`] made.
pub(crate) unsafe extern "C" fn join_thread(thread: OrtCustomThreadHandle) {
    // SAFETY: made by `create_thread`, and joined once.
    let thread = unsafe { Box::from_raw(thread.cast_mut().cast::<JoinHandle<()>>()) };
    // The runtime's work does not panic, and there is no way to report it.
    let _ = thread.join();
}
