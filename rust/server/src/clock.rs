//! CPU time of the calling thread.
#![allow(unsafe_code, reason = "clock_gettime has no safe wrapper in the standard library")]

/// Nanoseconds of CPU time that the calling thread has used; 0 where the system cannot say.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out-pointer is valid.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if answer != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
