//! Integer divisions that trap: by zero, and of the lowest value by -1. Inside ONNX Runtime they would end the process with
//! SIGFPE, so that one request could end it. The handler here steps over them, and their run fails.
//!
//! A signal handler cannot unwind or jump through C++ frames, so that the runtime goes on: the quotient is the dividend's low part,
//! the remainder is 0, and the thread is marked. [`SessionThreads::call_guarded`] reads the mark after the call into the runtime.
//! Only divisions in the runtime's own libraries are handled. Every other SIGFPE goes to the previous handler.
//!
//! The reasons are in `docs/design/crashes.md`. Next: `decode` (the instruction), `threads` (the marks).
#![allow(unsafe_code, reason = "a signal handler has no safe wrapper")]

#[cfg(target_arch = "x86_64")]
mod decode;
#[cfg(target_arch = "x86_64")]
mod handler;
mod threads;

pub use threads::stepped_over;
pub(crate) use threads::{SessionThreads, create_thread, join_thread};

/// Guards divisions in the runtime's libraries that are loaded now. `inside` is an address in one of them.
///
/// Each load of a model calls this again: a provider brings libraries of its own, and other code may have replaced our handler.
#[cfg(target_arch = "x86_64")]
pub(crate) fn guard(inside: usize) {
    handler::guard(inside);
}

/// Does nothing: integer division does not trap on this processor.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn guard(_inside: usize) {}
