//! Wakes the task of a connection, but not for what the task itself does in its turn.
//!
//! h2 wakes the connection's task whenever a reply is handed to it. A reply that the task hands over itself is sent in the same turn,
//! and a second turn would find nothing to do.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::task::{Wake, Waker};

/// The task is not in its turn: a wake-up reaches it.
const RESTING: u8 = 0;
/// The task looks at everything that it waits for.
const LOOKING: u8 = 1;
/// The same, and something has changed since the look began.
const CHANGED: u8 = 2;

/// What the parts of a connection wake.
///
/// ```text
/// RESTING --look--> LOOKING --wake--> CHANGED --look--> LOOKING --rest--> RESTING
/// ```
pub(super) struct TurnWaker {
    task: Waker,
    state: AtomicU8,
}

impl TurnWaker {
    /// For this task.
    pub(super) fn new(task: Waker) -> Arc<TurnWaker> {
        Arc::new(TurnWaker { task, state: AtomicU8::new(RESTING) })
    }

    /// A look at everything begins. What changed before it needs no wake-up.
    pub(super) fn look(&self) {
        self.state.swap(LOOKING, AcqRel);
    }

    /// The turn ends. The task is woken again if something has changed since the last look began.
    pub(super) fn rest(&self) {
        if self.state.swap(RESTING, AcqRel) == CHANGED {
            self.task.wake_by_ref();
        }
    }
}

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let changed = self.state.compare_exchange(LOOKING, CHANGED, AcqRel, Acquire);
        if changed == Err(RESTING) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_for_what_changes_after_its_last_look() {
        let count = Arc::<Count>::default();
        let turn = TurnWaker::new(count.clone().into());
        let woken = || count.0.swap(0, SeqCst);
        let waker: Waker = turn.clone().into();
        waker.wake_by_ref();
        assert_eq!(woken(), 1, "at rest");
        turn.look();
        waker.wake_by_ref();
        turn.look();
        turn.rest();
        assert_eq!(woken(), 0, "looked at again");
        turn.look();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 0, "in its turn");
        turn.rest();
        assert_eq!(woken(), 1, "not looked at again");
        waker.wake();
        assert_eq!(woken(), 1, "at rest again");
    }

    #[test]
    fn no_wake_up_of_another_thread_is_lost() {
        // Each number is set and then told. A task that rests without being woken must have seen the newest one.
        let count = Arc::<Count>::default();
        let turn = TurnWaker::new(count.clone().into());
        let (told, rounds) = (Arc::new(AtomicUsize::new(0)), 20_000);
        let (waker, telling): (Waker, _) = (turn.clone().into(), told.clone());
        let teller = std::thread::spawn(move || {
            for number in 1..=rounds {
                telling.store(number, SeqCst);
                waker.wake_by_ref();
            }
        });
        let mut seen = 0;
        while seen < rounds {
            turn.look();
            seen = told.load(SeqCst);
            turn.rest();
            // The next turn is the one that a wake-up asks for.
            while seen < rounds && count.0.swap(0, SeqCst) == 0 {
                std::thread::yield_now();
            }
        }
        teller.join().unwrap();
    }
}
