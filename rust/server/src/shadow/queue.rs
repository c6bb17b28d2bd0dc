//! A queue that IO threads push to without a lock and without waiting: bounded by count and by bytes, the newest is dropped.
//!
//! An item's bytes are counted until it is dropped, also after it has left the queue. Threads of the lowest priority take items: a push must
//! not wait for one that is interrupted meanwhile.

use std::ops::Deref;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;

use crate::shadow::drops::DropReason;

/// The most copies that wait for one shadow.
pub const MAX_LENGTH: usize = 1024;
/// The slots of a queue. A thread that is interrupted while it takes an item keeps its slot, and a push that reaches this slot waits for it.
/// With twice as many slots as items, that needs as many further items to be taken meanwhile as may wait.
const SLOTS: usize = 2 * MAX_LENGTH;
/// One shadow may hold this part of the bytes of all.
const PART_OF_BYTES: usize = 4;

/// The bytes that the copies of all shadows hold.
pub struct HeldBytes {
    used: AtomicUsize,
    limit: usize,
}

impl HeldBytes {
    /// None yet, and at most `limit`.
    pub fn new(limit: usize) -> HeldBytes {
        HeldBytes { used: AtomicUsize::new(0), limit }
    }

    /// The bytes that are held.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// The most bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// The queue of one shadow.
pub struct CopyQueue<T> {
    items: ArrayQueue<Queued<T>>,
    /// The oldest item, if [`CopyQueue::drop_late`] has left it. Pushes do not take this lock.
    oldest: Mutex<Option<Queued<T>>>,
    has_oldest: AtomicBool,
    bytes: Arc<QueueBytes>,
    /// Why nothing is taken any more: a [`DropReason`], or [`OPEN`].
    closed: AtomicU8,
}

const OPEN: u8 = u8::MAX;

struct QueueBytes {
    own: HeldBytes,
    all: Arc<HeldBytes>,
}

/// Copies that a push left out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: DropReason,
    /// How many. If the queue was closed during the push, this is what the push took out again: 0 if the close had done so.
    pub copies: u64,
}

/// An item, with its bytes.
pub struct Queued<T> {
    item: T,
    _bytes: ReservedBytes,
}

struct ReservedBytes {
    bytes: usize,
    of: Arc<QueueBytes>,
}

impl<T> CopyQueue<T> {
    /// An empty queue that takes nothing yet.
    pub fn new(all: &Arc<HeldBytes>) -> CopyQueue<T> {
        let own = HeldBytes::new(all.limit() / PART_OF_BYTES);
        CopyQueue {
            items: ArrayQueue::new(SLOTS),
            oldest: Mutex::default(),
            has_oldest: AtomicBool::new(false),
            bytes: Arc::new(QueueBytes { own, all: all.clone() }),
            closed: AtomicU8::new(DropReason::SwitchedOff as u8),
        }
    }

    /// Takes items from now on.
    pub fn open(&self) {
        self.closed.store(OPEN, SeqCst);
    }

    /// Takes no more items, and drops those that wait. Returns how many these were.
    pub fn close(&self, reason: DropReason) -> u64 {
        self.closed.store(reason as u8, SeqCst);
        fence(SeqCst);
        let mut oldest = self.lock_oldest();
        let first = u64::from(oldest.take().is_some());
        self.has_oldest.store(false, Relaxed);
        first + self.drain()
    }

    /// Adds an item that holds so many bytes.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), Refused> {
        if let Some(reason) = self.closed_for() {
            return Err(Refused { reason, copies: 1 });
        }
        let bytes = ReservedBytes::take(&self.bytes, bytes);
        let bytes = bytes.ok_or(Refused { reason: DropReason::Bytes, copies: 1 })?;
        self.add(Queued { item, _bytes: bytes })
    }

    /// Adds an item to a queue that was open a moment ago.
    fn add(&self, item: Queued<T>) -> Result<(), Refused> {
        let full = Refused { reason: DropReason::QueueFull, copies: 1 };
        if self.len() >= MAX_LENGTH {
            return Err(full);
        }
        self.items.push(item).map_err(|_| full)?;
        // A close whose drain came before this item is visible now; one that comes later drains the item.
        fence(SeqCst);
        match self.closed_for() {
            Some(reason) => Err(Refused { reason, copies: self.drain() }),
            None => Ok(()),
        }
    }

    fn closed_for(&self) -> Option<DropReason> {
        DropReason::ALL.get(usize::from(self.closed.load(SeqCst))).copied()
    }

    fn drain(&self) -> u64 {
        std::iter::from_fn(|| self.items.pop()).map(drop).count() as u64
    }

    /// Takes the oldest item. For threads of shadows, as [`CopyQueue::drop_late`].
    pub fn pop(&self) -> Option<Queued<T>> {
        let mut oldest = self.lock_oldest();
        let item = oldest.take().or_else(|| self.items.pop());
        self.has_oldest.store(false, Relaxed);
        item
    }

    /// Drops the oldest items for as long as they are late, and calls `count` for each.
    pub fn drop_late(&self, is_late: impl Fn(&T) -> bool, mut count: impl FnMut(&T)) {
        let mut oldest = self.lock_oldest();
        while let Some(item) = oldest.take().or_else(|| self.items.pop()) {
            // An item that was pushed while the queue was closed must not stay either.
            if self.closed_for().is_none() && !is_late(&item) {
                *oldest = Some(item);
                break;
            }
            count(&item);
        }
        self.has_oldest.store(oldest.is_some(), Relaxed);
    }

    fn lock_oldest(&self) -> MutexGuard<'_, Option<Queued<T>>> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len() + usize::from(self.has_oldest.load(Relaxed))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the items that wait and of those that were taken and still live.
    pub fn bytes(&self) -> &HeldBytes {
        &self.bytes.own
    }
}

impl<T> Deref for Queued<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl ReservedBytes {
    fn take(of: &Arc<QueueBytes>, bytes: usize) -> Option<ReservedBytes> {
        if !of.own.take(bytes) {
            return None;
        }
        if !of.all.take(bytes) {
            of.own.give(bytes);
            return None;
        }
        Some(ReservedBytes { bytes, of: of.clone() })
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.of.own.give(self.bytes);
        self.of.all.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(limit: usize) -> (Arc<HeldBytes>, CopyQueue<u32>, CopyQueue<u32>) {
        let all = Arc::new(HeldBytes::new(limit));
        let (one, other) = (CopyQueue::new(&all), CopyQueue::new(&all));
        one.open();
        other.open();
        (all, one, other)
    }

    fn refused(reason: DropReason) -> Result<(), Refused> {
        Err(Refused { reason, copies: 1 })
    }

    #[test]
    fn the_newest_is_dropped_when_as_many_wait_as_may() {
        let (all, queue, _) = queues(1 << 30);
        for item in 0..MAX_LENGTH as u32 {
            queue.push(item, 1).unwrap();
        }
        assert_eq!(queue.push(9_999, 1), refused(DropReason::QueueFull));
        queue.drop_late(|_| false, |_| unreachable!("none is late"));
        assert_eq!(queue.push(9_999, 1), refused(DropReason::QueueFull), "the oldest still waits");
        assert_eq!((queue.len(), all.used()), (MAX_LENGTH, MAX_LENGTH));
        assert_eq!(queue.pop().map(|first| *first), Some(0));
    }

    #[test]
    fn bytes_are_held_until_the_item_is_dropped_and_one_queue_cannot_take_those_of_all() {
        let (all, one, other) = queues(400);
        one.push(1, 60).unwrap();
        assert_eq!(one.push(2, 41), refused(DropReason::Bytes), "a quarter of all");
        other.push(3, 100).unwrap();
        let taken = one.pop().unwrap();
        assert_eq!((one.len(), one.bytes().used(), all.used()), (0, 60, 160));
        drop(taken);
        assert_eq!((one.bytes().used(), all.used()), (0, 100));
    }

    #[test]
    fn all_queues_together_have_a_limit() {
        let all = Arc::new(HeldBytes::new(100));
        let queues: Vec<CopyQueue<u32>> = (0..5).map(|_| CopyQueue::new(&all)).collect();
        queues.iter().for_each(CopyQueue::open);
        let taken: Vec<_> = queues.iter().map(|queue| queue.push(0, 25)).collect();
        assert_eq!(taken, [Ok(()), Ok(()), Ok(()), Ok(()), refused(DropReason::Bytes)]);
        assert_eq!(queues[4].bytes().used(), 0);
    }

    #[test]
    fn a_closed_queue_says_why_and_frees_what_waited() {
        let (all, queue, _) = queues(400);
        (0..3).for_each(|item| queue.push(item, 10).unwrap());
        assert_eq!(queue.close(DropReason::Shutdown), 3);
        assert_eq!((queue.push(4, 10), all.used()), (refused(DropReason::Shutdown), 0));
        queue.open();
        assert_eq!(queue.push(5, 10), Ok(()));
    }

    #[test]
    fn a_push_that_meets_a_close_leaves_nothing_in_the_closed_queue() {
        let (all, queue, _) = queues(400);
        let item = |item| Queued { item, _bytes: ReservedBytes::take(&queue.bytes, 10).unwrap() };
        // The push has found the queue open; the close comes before its item.
        let late = item(1);
        assert_eq!(queue.close(DropReason::SwitchedOff), 0);
        assert_eq!(queue.add(late), refused(DropReason::SwitchedOff));
        assert_eq!((queue.len(), all.used()), (0, 0));
        // A thread of shadows takes such an item before the push does.
        queue.items.push(item(2)).ok().unwrap();
        let mut dropped = 0;
        queue.drop_late(|_| false, |_| dropped += 1);
        assert_eq!((dropped, queue.len(), all.used()), (1, 0, 0));
    }

    #[test]
    fn late_items_are_dropped_from_the_oldest_on_and_the_others_stay_in_their_order() {
        let (all, queue, _) = queues(400);
        (1..=5).for_each(|item| queue.push(item, 10).unwrap());
        let mut dropped = Vec::new();
        queue.drop_late(|item| *item < 3, |item| dropped.push(*item));
        assert_eq!((&dropped[..], queue.len(), all.used()), (&[1, 2][..], 3, 30));
        queue.drop_late(|item| *item < 4, |item| dropped.push(*item));
        assert_eq!((dropped.len(), queue.len()), (3, 2));
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop()].map(|item| item.map(|item| *item)),
            [Some(4), Some(5), None]
        );
        (6..=8).for_each(|item| queue.push(item, 10).unwrap());
        queue.drop_late(|_| false, |_| unreachable!("none is late"));
        assert_eq!((queue.close(DropReason::SwitchedOff), queue.is_empty(), all.used()), (3, true, 0));
    }
}
