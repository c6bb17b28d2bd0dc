//! The stage of a thread's work as one word, which the thread and cancelling threads write.
//!
//! ```text
//! idle --begin--> ready <--enter/leave--> calling --cancel--> cancelling --flag--> cancelled --end--> idle
//!                   '----------------------cancel----------------------------------^
//! ```
//! Each piece of work has a number, so that a late cancellation never cancels the next piece. A thread that leaves a call waits
//! until the cancelling thread has set the runtime's flag. Then the thread resets the flag, and no other thread touches it.
//!
//! Next: back to `cancel`.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering::*};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering::*};

const IDLE: u64 = 0;
const READY: u64 = 1;
const CALLING: u64 = 2;
const CANCELLING: u64 = 3;
const CANCELLED: u64 = 4;
/// The bits of the stage. The other bits are the number.
const BITS: u32 = 3;

/// The result of [`CancelState::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEntry {
    /// Outside of any scope: the call cannot be cancelled.
    Outside,
    /// Within a scope: the call can be cancelled.
    Inside,
    /// Within a scope that was cancelled: the call must not be made.
    Cancelled,
}

/// The state of one thread. Other threads call [`CancelState::cancel`], [`CancelState::current`] and
/// [`CancelState::is_cancelled`] only.
pub(super) struct CancelState(AtomicU64);

impl CancelState {
    pub(super) fn new() -> CancelState {
        CancelState(AtomicU64::new(IDLE))
    }

    /// Begins a piece of work. Returns its number.
    pub(super) fn begin(&self) -> u64 {
        let number = (self.0.load(Relaxed) >> BITS) + 1;
        self.0.store(word(number, READY), Release);
        number
    }

    /// Ends it.
    pub(super) fn end(&self) {
        let number = self.0.load(Relaxed) >> BITS;
        // A swap, so that the end is ordered against a thread that cancels at this moment.
        self.0.swap(word(number, IDLE), AcqRel);
    }

    /// Enters a call that can be cancelled. After [`CallEntry::Inside`] the thread must call `leave`.
    pub(super) fn enter(&self) -> CallEntry {
        let now = self.0.load(Relaxed);
        match stage(now) {
            IDLE => CallEntry::Outside,
            READY => match self.0.compare_exchange(now, now - READY + CALLING, AcqRel, Acquire) {
                Ok(_) => CallEntry::Inside,
                Err(_) => CallEntry::Cancelled,
            },
            _ => CallEntry::Cancelled,
        }
    }

    /// Leaves a call. Returns whether it was cancelled; the runtime's flag is set then, and no other thread touches it.
    pub(super) fn leave(&self) -> bool {
        let number = self.0.load(Relaxed) >> BITS;
        let calling = word(number, CALLING);
        if self.0.compare_exchange(calling, word(number, READY), AcqRel, Acquire).is_ok() {
            return false;
        }
        while stage(self.0.load(Acquire)) != CANCELLED {
            // The cancelling thread is between two lines of `cancel`, and may need this core.
            #[cfg(feature = "loom")]
            loom::thread::yield_now();
            #[cfg(not(feature = "loom"))]
            std::thread::yield_now();
        }
        true
    }

    /// Cancels the work of that number. `set_flag` ends a call that is in progress. Returns false if the work is over.
    pub(super) fn cancel(&self, number: u64, set_flag: impl FnOnce()) -> bool {
        loop {
            let now = self.0.load(Acquire);
            if now >> BITS != number {
                return false;
            }
            match stage(now) {
                IDLE => return false,
                READY => {
                    if self.0.compare_exchange(now, word(number, CANCELLED), AcqRel, Acquire).is_ok() {
                        return true;
                    }
                }
                CALLING => {
                    if self.0.compare_exchange(now, word(number, CANCELLING), AcqRel, Acquire).is_ok() {
                        set_flag();
                        self.0.store(word(number, CANCELLED), Release);
                        return true;
                    }
                }
                _ => return true,
            }
        }
    }

    /// The number of the work in progress.
    pub(super) fn current(&self) -> Option<u64> {
        let now = self.0.load(Acquire);
        (stage(now) != IDLE).then_some(now >> BITS)
    }

    /// Whether the work of that number is in progress and was cancelled.
    pub(super) fn is_cancelled(&self, number: u64) -> bool {
        let now = self.0.load(Acquire);
        now >> BITS == number && stage(now) >= CANCELLING
    }
}

fn word(number: u64, stage: u64) -> u64 {
    number << BITS | stage
}

fn stage(word: u64) -> u64 {
    word & ((1 << BITS) - 1)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn work_that_was_cancelled_makes_no_further_call_and_the_next_piece_does() {
        let state = CancelState::new();
        assert_eq!(state.enter(), CallEntry::Outside);
        let first = state.begin();
        assert_eq!(state.enter(), CallEntry::Inside);
        assert!(!state.leave());
        assert!(state.cancel(first, || panic!("no call is in progress")));
        assert!(state.is_cancelled(first));
        assert_eq!(state.enter(), CallEntry::Cancelled);
        state.end();
        assert!(!state.cancel(first, || panic!("it is over")) && !state.is_cancelled(first));
        let second = state.begin();
        assert!(!state.cancel(first, || panic!("it is over")));
        assert_eq!((state.current(), state.enter()), (Some(second), CallEntry::Inside));
    }

    #[test]
    fn the_runtime_is_told_once_while_a_call_is_in_progress() {
        let (state, mut told) = (CancelState::new(), 0);
        let number = state.begin();
        assert_eq!(state.enter(), CallEntry::Inside);
        assert!(state.cancel(number, || told += 1) && state.cancel(number, || told += 1));
        assert!(state.leave());
        assert_eq!(told, 1);
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// In any order: the flag of a cancellation is seen and reset by the call that it is for, and the next piece of work begins
    /// without it.
    #[test]
    fn a_late_cancel_never_meets_the_next_piece_of_work() {
        loom::model(|| {
            let (state, flag) = (Arc::new(CancelState::new()), Arc::new(AtomicUsize::new(0)));
            let first = state.begin();
            let canceller = {
                let (state, flag) = (state.clone(), flag.clone());
                thread::spawn(move || state.cancel(first, || flag.store(1, Relaxed)))
            };
            if state.enter() == CallEntry::Inside && state.leave() {
                assert_eq!(flag.load(Relaxed), 1);
                flag.store(0, Relaxed);
            }
            state.end();
            state.begin();
            assert_eq!(state.enter(), CallEntry::Inside);
            assert!(!state.leave());
            assert_eq!(flag.load(Relaxed), 0);
            canceller.join().unwrap();
            assert_eq!(flag.load(Relaxed), 0);
        });
    }
}
