//! Integer divisions that the processor refuses: by zero, and of the lowest value by -1. Inside ONNX Runtime they would end the
//! process with SIGFPE, at the will of whoever sends a request. Here they are stepped over, and the run that they are part of fails.
//!
//! A signal handler cannot unwind or jump through C++ frames, so it lets the runtime go on: the quotient is the dividend's low part,
//! the remainder is 0, and the thread is marked. [`SessionThreads::call_guarded`] reads the mark after the call into the runtime. Only divisions
//! within the runtime's own libraries are handled; every other SIGFPE goes to the handler that was there before.
//! Why so: `docs/design/crashes.md`. Next: `decode` (the instruction), `threads` (whose mark it is).
#![allow(unsafe_code, reason = "a signal handler has no safe wrapper")]

#[cfg(target_arch = "x86_64")]
mod decode;
#[cfg(target_arch = "x86_64")]
mod handler;
mod threads;

pub use threads::stepped_over;
pub(crate) use threads::{SessionThreads, create_thread, join_thread};

/// Makes sure that divisions in the runtime's libraries are handled: those loaded by now, with `inside` in one of them. Called again
/// before each load, because a provider brings libraries of its own and others may have put their handler in place of ours.
#[cfg(target_arch = "x86_64")]
pub(crate) fn guard(inside: usize) {
    handler::guard(inside);
}

/// Where integer division does not trap, nothing is to be guarded.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn guard(_inside: usize) {}
