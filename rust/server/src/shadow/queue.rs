//! A queue that IO threads push to without a lock and without waiting: bounded by count and by bytes, the newest is dropped.
//!
//! An item's bytes are counted until it is dropped, also after it has left the queue.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;

use crate::shadow::drops::DropReason;

/// The most copies that wait for one shadow.
pub const MAX_LENGTH: usize = 1024;
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
    bytes: Arc<QueueBytes>,
    /// Why nothing is taken any more: a [`DropReason`], or [`OPEN`].
    closed: AtomicU8,
}

const OPEN: u8 = u8::MAX;

struct QueueBytes {
    own: HeldBytes,
    all: Arc<HeldBytes>,
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
            items: ArrayQueue::new(MAX_LENGTH),
            bytes: Arc::new(QueueBytes { own, all: all.clone() }),
            closed: AtomicU8::new(DropReason::SwitchedOff as u8),
        }
    }

    /// Takes items from now on.
    pub fn open(&self) {
        self.closed.store(OPEN, Relaxed);
    }

    /// Takes no more items, and drops those that wait. Returns how many these were.
    pub fn close(&self, reason: DropReason) -> u64 {
        self.closed.store(reason as u8, Relaxed);
        let mut dropped = 0;
        while self.items.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Adds an item that holds so many bytes.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), DropReason> {
        let closed = self.closed.load(Relaxed);
        if let Some(reason) = DropReason::ALL.get(usize::from(closed)) {
            return Err(*reason);
        }
        let bytes = ReservedBytes::take(&self.bytes, bytes).ok_or(DropReason::Bytes)?;
        self.items.push(Queued { item, _bytes: bytes }).map_err(|_| DropReason::QueueFull)
    }

    /// Takes the oldest item.
    pub fn pop(&self) -> Option<Queued<T>> {
        self.items.pop()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
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

    #[test]
    fn the_newest_is_dropped_when_as_many_wait_as_may() {
        let (all, queue, _) = queues(1 << 30);
        for item in 0..MAX_LENGTH as u32 {
            queue.push(item, 1).unwrap();
        }
        assert_eq!(queue.push(9_999, 1), Err(DropReason::QueueFull));
        assert_eq!((queue.len(), all.used()), (MAX_LENGTH, MAX_LENGTH));
        assert_eq!(queue.pop().map(|first| *first), Some(0));
    }

    #[test]
    fn bytes_are_held_until_the_item_is_dropped_and_one_queue_cannot_take_those_of_all() {
        let (all, one, other) = queues(400);
        one.push(1, 60).unwrap();
        assert_eq!(one.push(2, 41), Err(DropReason::Bytes), "a quarter of all");
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
        assert_eq!(taken, [Ok(()), Ok(()), Ok(()), Ok(()), Err(DropReason::Bytes)]);
        assert_eq!(queues[4].bytes().used(), 0);
    }

    #[test]
    fn a_closed_queue_says_why_and_frees_what_waited() {
        let (all, queue, _) = queues(400);
        (0..3).for_each(|item| queue.push(item, 10).unwrap());
        assert_eq!(queue.close(DropReason::Shutdown), 3);
        assert_eq!((queue.push(4, 10), all.used()), (Err(DropReason::Shutdown), 0));
        queue.open();
        assert_eq!(queue.push(5, 10), Ok(()));
    }
}
