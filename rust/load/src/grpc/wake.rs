//! Wake-ups of one thread's futures: a list of what can go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// What can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The connection in this slot.
    Connection(u32),
    /// The unary call with this number.
    Call(u32),
}

/// What was woken since the list was last taken.
#[derive(Default)]
pub(super) struct WakeList {
    woken: Mutex<Vec<Woken>>,
}

impl WakeList {
    fn push(&self, woken: Woken) {
        let mut list = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if list.last() != Some(&woken) {
            list.push(woken);
        }
    }

    /// Puts the list into `taken`, which is empty, and takes its memory.
    pub(super) fn take(&self, taken: &mut Vec<Woken>) {
        std::mem::swap(taken, &mut self.woken.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Entry {
    list: Arc<WakeList>,
    woken: Woken,
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list.push(self.woken);
    }
}

/// A waker that puts `woken` on the list.
pub(super) fn waker(list: &Arc<WakeList>, woken: Woken) -> Waker {
    Waker::from(Arc::new(Entry { list: Arc::clone(list), woken }))
}
