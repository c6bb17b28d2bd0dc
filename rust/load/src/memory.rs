//! Memory that is given back to the system.
#![allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Gives freed memory back, which glibc keeps for itself if it lies between blocks that are in use.
pub(crate) fn trim() {
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
