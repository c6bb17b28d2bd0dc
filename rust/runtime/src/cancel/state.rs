//! How far the work of a thread is, and who may end it: one word, written by the thread and by whoever cancels.
//!
//! ```text
//! idle --begin--> ready <--enter/leave--> calling --cancel--> cancelling --told--> cancelled --end--> idle
//!                   '----------------------cancel----------------------------------^
//! ```
//! Each piece of work has a number, so that who cancels late never meets the next one. A thread that leaves a call waits until
//! whoever cancels it has told the runtime: what was told can be taken back then, and nobody touches it any more.
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
/// The bits of the stage; the rest is the number.
const BITS: u32 = 3;

/// Where a call may be made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEntry {
    /// No work was begun: nobody can cancel it.
    Outside,
    /// Within work that goes on.
    Inside,
    /// Within work that was cancelled: no call is to be made.
    Cancelled,
}

/// The state of one thread. All but [`CancelState::cancel`], [`CancelState::current`] and [`CancelState::is_cancelled`] are the thread's own.
pub(super) struct CancelState(AtomicU64);

impl CancelState {
    pub(super) fn new() -> CancelState {
        CancelState(AtomicU64::new(IDLE))
    }

    /// Begins a piece of work; its number.
    pub(super) fn begin(&self) -> u64 {
        let number = (self.0.load(Relaxed) >> BITS) + 1;
        self.0.store(word(number, READY), Release);
        number
    }

    /// Ends it.
    pub(super) fn end(&self) {
        let number = self.0.load(Relaxed) >> BITS;
        // Swapped, so that it is ordered against whoever cancels at this moment.
        self.0.swap(word(number, IDLE), AcqRel);
    }

    /// Before a call that can be cancelled. After [`CallEntry::Inside`] the thread leaves again.
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

    /// After a call; whether it was cancelled meanwhile. Then nobody tells the runtime any more.
    pub(super) fn leave(&self) -> bool {
        let number = self.0.load(Relaxed) >> BITS;
        let calling = word(number, CALLING);
        if self.0.compare_exchange(calling, word(number, READY), AcqRel, Acquire).is_ok() {
            return false;
        }
        while stage(self.0.load(Acquire)) != CANCELLED {
            // Whoever cancels is between two lines of `cancel`; it may need this core.
            #[cfg(feature = "loom")]
            loom::thread::yield_now();
            #[cfg(not(feature = "loom"))]
            std::thread::yield_now();
        }
        true
    }

    /// Cancels the work of that number; `set_flag` has the runtime end a call that is in progress. False if the work is over.
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

    /// Whatever the order: what a canceller tells the runtime is seen and taken back by the call that it was meant for, and the next
    /// piece of work begins untouched.
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
