//! The rows of a batch: which request they belong to, whether it has written them, whether it has left, and its outcome.
//!
//! ```text
//! open --close--> closed (no more rows) --last writer done--> requests known --settle--> settled (outcomes are taken one by one)
//! ```
//! A request reserves rows, writes them without a lock, marks them as written, and waits. The worker closes the batch, waits for the
//! requests that still write, runs the rows of those that have not left, and settles them. The rows of two slots never overlap, and no
//! request writes once the ready requests are known. The unsafe code in `batch` rests on that, so loom checks it.
//!
//! Not here: the memory of the rows (`batch`). Next: `batch`.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, lock};
use crate::time::Instant;

/// The slots of one batch. `O` is the outcome of a request.
pub(crate) struct RowSlots<O> {
    state: Mutex<RowSlotsState<O>>,
    /// Notified when a request has written its rows or has left.
    changed: Condvar,
    capacity: usize,
}

struct RowSlotsState<O> {
    closed: bool,
    /// Rows that are reserved.
    rows: usize,
    writing: usize,
    /// Whether the batch was queued.
    submitted: bool,
    slots: Vec<RowSlot<O>>,
}

struct RowSlot<O> {
    start: usize,
    rows: usize,
    /// The IO thread that waits.
    thread: usize,
    queued_at: Instant,
    deadline: Instant,
    stage: SlotStage<O>,
    waker: Option<Waker>,
}

enum SlotStage<O> {
    Writing,
    Written,
    Left,
    Settled(Option<O>),
}

/// A request whose rows are to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadyRows {
    /// Its slot.
    pub(crate) index: usize,
    /// The first row that it wrote.
    pub(crate) start: usize,
    /// The number of its rows.
    pub(crate) rows: usize,
    /// When it reserved them.
    pub(crate) queued_at: Instant,
    /// Until when its run is of use.
    pub(crate) deadline: Instant,
}

/// The requests of a batch that have not left: what decides how long it waits for more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingRows {
    /// The number of their rows.
    pub(crate) rows: usize,
    /// Whether no more rows fit.
    pub(crate) full: bool,
    /// When the oldest of them reserved its rows.
    pub(crate) oldest_queued_at: Instant,
    /// The earliest deadline.
    pub(crate) earliest_deadline: Instant,
    /// The latest deadline.
    pub(crate) latest_deadline: Instant,
}

impl<O> RowSlots<O> {
    /// Slots for `capacity` rows.
    pub(crate) fn new(capacity: usize) -> Self {
        let state = RowSlotsState { closed: false, rows: 0, writing: 0, submitted: false, slots: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, RowSlotsState<O>> {
        lock(&self.state)
    }

    /// Reserves rows for a request of IO thread `thread`: the index of its slot and its first row. `None` if there is no room or the batch is
    /// closed.
    pub(crate) fn reserve(
        &self,
        rows: usize,
        thread: usize,
        now: Instant,
        deadline: Instant,
    ) -> Option<(usize, usize)> {
        let mut state = self.lock();
        let start = state.rows;
        if state.closed || start + rows > self.capacity {
            return None;
        }
        state.rows += rows;
        state.writing += 1;
        state.slots.push(RowSlot {
            start,
            rows,
            thread,
            queued_at: now,
            deadline,
            stage: SlotStage::Writing,
            waker: None,
        });
        Some((state.slots.len() - 1, start))
    }

    /// Whether no more rows can be reserved.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Marks the rows of a slot as written. True for the first slot: its request must queue the batch.
    pub(crate) fn mark_written(&self, index: usize) -> bool {
        let mut state = self.lock();
        state.slots[index].stage = SlotStage::Written;
        state.writing -= 1;
        self.changed.notify_all();
        !std::mem::replace(&mut state.submitted, true)
    }

    /// The request of a slot leaves. True if all requests have left now.
    pub(crate) fn leave(&self, index: usize) -> bool {
        let mut state = self.lock();
        let stage = std::mem::replace(&mut state.slots[index].stage, SlotStage::Left);
        if matches!(stage, SlotStage::Writing) {
            state.writing -= 1;
            self.changed.notify_all();
        }
        let all_left = !state.slots.iter().any(RowSlot::is_waiting);
        // Its outcome, if there is one, is dropped outside the lock.
        drop(state);
        drop(stage);
        all_left
    }

    /// Whether the request of a slot has left.
    pub(crate) fn has_left(&self, index: usize) -> bool {
        matches!(self.lock().slots[index].stage, SlotStage::Left)
    }

    /// The requests that have not left; `None` if all have.
    pub(crate) fn waiting_rows(&self) -> Option<WaitingRows> {
        self.lock().waiting(self.capacity)
    }

    /// Waits for more rows until the time that `until` gives, which is asked again, with the present time, whenever the requests change.
    pub(crate) fn wait(&self, mut until: impl FnMut(WaitingRows, Instant) -> Option<Instant>) {
        let mut state = self.lock();
        loop {
            let Some(waiting) = state.waiting(self.capacity) else { return };
            let now = Instant::now();
            let Some(left) = until(waiting, now).and_then(|until| until.checked_duration_since(now)) else {
                return;
            };
            if left == Duration::ZERO {
                return;
            }
            state = self.pause(state, left);
        }
    }

    #[cfg(not(feature = "loom"))]
    fn pause<'a>(
        &'a self,
        state: MutexGuard<'a, RowSlotsState<O>>,
        left: Duration,
    ) -> MutexGuard<'a, RowSlotsState<O>> {
        let waited = self.changed.wait_timeout(state, left);
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// loom has no clock: a wait ends when something changes.
    #[cfg(feature = "loom")]
    fn pause<'a>(
        &'a self,
        state: MutexGuard<'a, RowSlotsState<O>>,
        _: Duration,
    ) -> MutexGuard<'a, RowSlotsState<O>> {
        self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Closes the batch, waits for the requests that still write, and returns those that have not left, in the order of their rows.
    pub(crate) fn close(&self) -> Vec<ReadyRows> {
        let mut state = self.lock();
        state.closed = true;
        while state.writing > 0 {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let ready = |(index, slot): (usize, &RowSlot<O>)| {
            let RowSlot { start, rows, queued_at, deadline, .. } = *slot;
            matches!(slot.stage, SlotStage::Written).then_some(ReadyRows {
                index,
                start,
                rows,
                queued_at,
                deadline,
            })
        };
        state.slots.iter().enumerate().filter_map(ready).collect()
    }

    /// Sets the outcomes of some slots. If a request has left, its outcome is dropped.
    pub(crate) fn settle(&self, outcomes: impl IntoIterator<Item = (usize, O)>) {
        let mut unwanted = Vec::new();
        let mut state = self.lock();
        for (index, outcome) in outcomes {
            let stage = &mut state.slots[index].stage;
            if matches!(stage, SlotStage::Left) {
                unwanted.push(outcome);
            } else {
                *stage = SlotStage::Settled(Some(outcome));
            }
        }
        drop(state);
        drop(unwanted);
    }

    /// The IO threads that wait for an outcome that is there, each once.
    pub(crate) fn settled_threads(&self) -> Vec<usize> {
        let state = self.lock();
        let settled = state.slots.iter().filter(|slot| matches!(slot.stage, SlotStage::Settled(_)));
        let mut settled_threads: Vec<usize> = settled.map(|slot| slot.thread).collect();
        settled_threads.sort_unstable();
        settled_threads.dedup();
        settled_threads
    }

    /// Wakes the requests of an IO thread that have an outcome.
    pub(crate) fn wake(&self, thread: usize) {
        let mut wakers = Vec::new();
        for slot in &mut self.lock().slots {
            if slot.thread == thread && matches!(slot.stage, SlotStage::Settled(_)) {
                wakers.extend(slot.waker.take());
            }
        }
        // Outside the lock, because a request that is woken takes it.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The outcome of a slot, once.
    pub(crate) fn poll(&self, index: usize, cx: &mut Context<'_>) -> Poll<O> {
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        if let SlotStage::Settled(outcome) = &mut slot.stage
            && let Some(outcome) = outcome.take()
        {
            return Poll::Ready(outcome);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<O> RowSlot<O> {
    /// Whether the request waits for its outcome.
    fn is_waiting(&self) -> bool {
        matches!(self.stage, SlotStage::Writing | SlotStage::Written)
    }
}

impl<O> RowSlotsState<O> {
    /// `None` if all requests have left.
    fn waiting(&self, capacity: usize) -> Option<WaitingRows> {
        let here = || self.slots.iter().filter(|slot| slot.is_waiting());
        Some(WaitingRows {
            rows: here().map(|slot| slot.rows).sum(),
            full: self.rows == capacity,
            oldest_queued_at: here().map(|slot| slot.queued_at).min()?,
            earliest_deadline: here().map(|slot| slot.deadline).min()?,
            latest_deadline: here().map(|slot| slot.deadline).max()?,
        })
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    /// A request reserves a row, marks it as written, and may leave. True if it is the one that queues the batch.
    fn request(slots: &RowSlots<usize>, leaves: bool) -> Option<bool> {
        let now = Instant::now();
        let (index, _) = slots.reserve(1, 0, now, now)?;
        let first = slots.mark_written(index);
        if leaves {
            slots.leave(index);
        }
        Some(first)
    }

    /// Whatever the order: the batch is queued once, no request is in it twice, and each that stayed is settled.
    fn run(leaves: [bool; 2]) {
        loom::model(move || {
            let (slots, submitted) = (Arc::new(RowSlots::<usize>::new(2)), Arc::new(AtomicUsize::new(0)));
            let requests = leaves.map(|leaves| {
                let (slots, submitted) = (slots.clone(), submitted.clone());
                thread::spawn(move || {
                    let first = request(&slots, leaves);
                    submitted.fetch_add(usize::from(first == Some(true)), SeqCst);
                    first.is_some() && !leaves
                })
            });
            let ready = slots.close();
            slots.settle(ready.iter().map(|request| (request.index, request.index)));
            let stayed: usize = requests.into_iter().map(|one| usize::from(one.join().unwrap())).sum();
            assert!(ready.len() >= stayed && ready.len() <= 2);
            assert!(submitted.load(SeqCst) <= 1);
            for request in ready {
                let settled = slots.poll(request.index, &mut Context::from_waker(Waker::noop()));
                assert!(settled.is_pending() || settled == Poll::Ready(request.index));
            }
        });
    }

    #[test]
    fn two_requests_and_an_executor() {
        run([false, false]);
    }

    #[test]
    fn one_of_them_leaves() {
        run([true, false]);
    }

    /// No outcome is missed: either the request sees it, or its waker is there to be woken.
    #[test]
    fn a_waiter_is_woken() {
        loom::model(|| {
            let now = Instant::now();
            let slots = Arc::new(RowSlots::<usize>::new(1));
            let (index, _) = slots.reserve(1, 3, now, now).unwrap();
            slots.mark_written(index);
            let executor = {
                let slots = slots.clone();
                thread::spawn(move || {
                    let requests = slots.close();
                    slots.settle(requests.iter().map(|request| (request.index, 7)));
                    slots.settled_threads().into_iter().for_each(|thread| slots.wake(thread));
                })
            };
            assert_eq!(loom::future::block_on(std::future::poll_fn(|cx| slots.poll(index, cx))), 7);
            executor.join().unwrap();
        });
    }
}
