//! A SIGFPE outside the runtime goes to the previous handler. This is a test binary of its own, because the handler belongs to the
//! process.
#![cfg(target_arch = "x86_64")]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, reason = "signals have no safe wrapper")]

mod common;

use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::library;

static HEARD: AtomicUsize = AtomicUsize::new(0);

extern "C" fn hear(_: libc::c_int) {
    HEARD.fetch_add(1, SeqCst);
}

#[test]
fn a_signal_that_somebody_sent_reaches_the_handler_before() {
    // SAFETY: a valid action whose handler touches an atomic alone; raise has no preconditions.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = hear as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGFPE, &action, null_mut()), 0);
        // Opening the library installs the handler for its divisions.
        library();
        let mut now: libc::sigaction = zeroed();
        assert_eq!(libc::sigaction(libc::SIGFPE, null_mut(), &mut now), 0);
        assert_ne!(now.sa_sigaction, action.sa_sigaction);
        for times in 1..=3 {
            assert_eq!(libc::raise(libc::SIGFPE), 0);
            assert_eq!(HEARD.load(SeqCst), times);
        }
    }
}
