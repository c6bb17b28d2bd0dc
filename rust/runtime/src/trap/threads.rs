//! Whose division it was: marks of threads, and the threads that the runtime makes for a session.
//!
//! A session with one thread runs on its caller's, so the caller's mark is the run's. With more, the runtime makes threads of its
//! own for the session; a division on one of them may belong to any run of the session that is in progress, so all of those fail.
//! The runtime is told to make these threads through us, and each knows its session from its first instruction.

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
    // None has a constructor or a destructor: a signal handler may touch them. They are in a library that was opened at run time,
    // so a thread's first touch allocates; that is safe where the signal is a trapped division, which is never within malloc.
    static MARKED: AtomicBool = const { AtomicBool::new(false) };
    static IN_PREVIOUS: AtomicBool = const { AtomicBool::new(false) };
    static SESSION: Cell<*const AtomicU64> = const { Cell::new(null()) };
}

/// Marks this thread, and its session if it is one of a session's own.
#[cfg(target_arch = "x86_64")]
pub(super) fn mark() {
    MARKED.with(|marked| marked.store(true, Relaxed));
    // SAFETY: null, or the count of a session that joins this thread before it ends.
    if let Some(divisions) = unsafe { SESSION.get().as_ref() } {
        divisions.fetch_add(1, SeqCst);
    }
}

/// Whether this thread was marked; it no longer is.
pub(super) fn take_mark() -> bool {
    MARKED.with(|marked| {
        let was = marked.load(Relaxed);
        if was {
            marked.store(false, Relaxed);
        }
        was
    })
}

/// Whether this thread is in the handler that was there before ours.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_in_previous() -> bool {
    IN_PREVIOUS.with(|passing| passing.load(Relaxed))
}

/// See [`is_in_previous`].
#[cfg(target_arch = "x86_64")]
pub(super) fn set_in_previous(passing: bool) {
    IN_PREVIOUS.with(|now| now.store(passing, Relaxed));
}

/// The threads of a session: the caller's alone, or with some that the runtime made for it.
#[derive(Default)]
pub(crate) struct SessionThreads {
    /// Divisions that were stepped over on threads of the session's own; none if it has no such thread.
    divisions: Option<Arc<AtomicU64>>,
}

impl SessionThreads {
    /// Of a session with so many threads, the caller's among them; 0 leaves their number to the runtime.
    pub(crate) fn new(intra_threads: u16) -> SessionThreads {
        SessionThreads { divisions: (intra_threads != 1).then(Arc::default) }
    }

    /// What [`create_thread`] is handed by the runtime; `None` if there is nothing to create.
    pub(crate) fn creation_options(&self) -> Option<*mut c_void> {
        self.divisions.as_ref().map(|divisions| Arc::as_ptr(divisions).cast_mut().cast())
    }

    /// Calls the runtime, and fails if a division was stepped over meanwhile.
    pub(crate) fn call_guarded(&self, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.divisions.as_ref().map(|divisions| divisions.load(SeqCst));
        let result = call();
        let elsewhere = self.divisions.as_ref().map(|divisions| divisions.load(SeqCst)) != before;
        if take_mark() || elsewhere { Err(division_error()) } else { result }
    }
}

/// What a call into the runtime fails with after a division was stepped over.
fn division_error() -> Error {
    let words = "the model divides an integer by zero, or the lowest integer by -1, which has no result";
    Error::new(Code::BackendFailed, words)
}

/// Makes a thread for the runtime: it knows its session before it does anything.
pub(crate) unsafe extern "C" fn create_thread(
    divisions: *mut c_void,
    work: OrtThreadWorkerFn,
    argument: *mut c_void,
) -> OrtCustomThreadHandle {
    /// Pointers that are the thread's from its start on.
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
    // The runtime takes null as a failure to create a thread, and fails the load.
    spawned.map_or(null(), |thread| Box::into_raw(Box::new(thread)).cast_const().cast())
}

/// Waits for the end of a thread that [`create_thread`] made.
pub(crate) unsafe extern "C" fn join_thread(thread: OrtCustomThreadHandle) {
    // SAFETY: made by `create_thread`, and joined once.
    let thread = unsafe { Box::from_raw(thread.cast_mut().cast::<JoinHandle<()>>()) };
    // The runtime's work does not panic; nobody could be told if it did.
    let _ = thread.join();
}
