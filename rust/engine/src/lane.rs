//! The queue of one version before the pool: what waits there, and how much of it may run at a time.
//!
//! ```text
//! push --fewer run than may--> a token goes to the pool --> a thread takes the next piece of work
//!                                                           more waits: the token goes to the end of the pool's queue
//! ```
//! One token for each run in progress or about to be, so that versions take turns and none holds more threads than it may.
//!
//! Not here: the threads (`pool`). Next: `pool`.

use std::collections::VecDeque;

use crate::sync::{Mutex, lock};

/// One version's queue.
pub(crate) struct Lane<T> {
    state: Mutex<State<T>>,
    /// Tokens at most.
    instances: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    tokens: usize,
}

impl<T> Lane<T> {
    /// An empty queue of which `instances` pieces may run at the same time.
    pub(crate) fn new(instances: usize) -> Self {
        Self { state: Mutex::new(State { queue: VecDeque::new(), tokens: 0 }), instances }
    }

    /// Adds work. True when the caller gives the pool a token for it.
    #[must_use]
    pub(crate) fn push(&self, work: T) -> bool {
        let mut state = lock(&self.state);
        state.queue.push_back(work);
        let more = state.tokens < self.instances;
        state.tokens += usize::from(more);
        more
    }

    /// The next piece for the holder of a token; `None` takes the token back.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = lock(&self.state);
        let work = state.queue.pop_front();
        state.tokens -= usize::from(work.is_none());
        work
    }

    /// Whether the holder of a token, whose work is done, keeps it because more waits; else it is taken back.
    #[must_use]
    pub(crate) fn more(&self) -> bool {
        let mut state = lock(&self.state);
        let more = !state.queue.is_empty();
        state.tokens -= usize::from(!more);
        more
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    /// Whatever the order: no work is left behind without a token, and no more runs at a time than may.
    fn run(instances: usize) {
        loom::model(move || {
            let lane = Arc::new(Lane::new(instances));
            let (done, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let threads = [1, 2].map(|work| {
                let (lane, done, running) = (lane.clone(), done.clone(), running.clone());
                thread::spawn(move || {
                    if !lane.push(work) {
                        return;
                    }
                    // The token, taken by a pool thread.
                    while let Some(work) = lane.next() {
                        assert!(running.fetch_add(1, SeqCst) < instances);
                        done.fetch_add(work, SeqCst);
                        running.fetch_sub(1, SeqCst);
                        if !lane.more() {
                            return;
                        }
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(done.load(SeqCst), 3);
            assert!(lane.push(0), "every token is back");
        });
    }

    #[test]
    fn one_at_a_time() {
        run(1);
    }

    #[test]
    fn two_at_a_time() {
        run(2);
    }
}
