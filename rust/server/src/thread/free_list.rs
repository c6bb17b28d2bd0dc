//! A free list keeps empty vectors of a thread for the next request. It has bounds, so that the memory of a large response is not kept for
//! ever.

use std::cell::{Cell, RefCell};

use crate::reply_fields::ReplyField;

/// The empty vectors of a thread.
pub struct FreeList<T> {
    lists: RefCell<Vec<Vec<T>>>,
    /// The capacity of all vectors together, in elements.
    room: Cell<usize>,
    /// The most vectors.
    keep: usize,
    /// The largest capacity of a vector. A larger one is freed.
    largest: usize,
    /// The largest capacity of all vectors together.
    most: usize,
}

impl FreeList<u8> {
    /// Buffers for responses: many and small.
    pub fn for_replies() -> Self {
        FreeList::with_bounds(256, 1 << 20, 8 << 20)
    }

    /// Buffers for bodies that arrive in pieces: few and large.
    pub fn for_bodies() -> Self {
        FreeList::with_bounds(8, 4 << 20, 16 << 20)
    }
}

impl FreeList<ReplyField> {
    /// Vectors for the header fields of responses.
    pub fn for_fields() -> Self {
        FreeList::with_bounds(16, 64, 16 * 64)
    }
}

impl<T> FreeList<T> {
    /// A free list of at most `keep` vectors, with capacities of at most `largest` elements each and `most` together.
    pub fn with_bounds(keep: usize, largest: usize, most: usize) -> Self {
        FreeList { lists: RefCell::default(), room: Cell::new(0), keep, largest, most }
    }

    /// An empty vector, which is a new one if none is kept.
    pub fn take(&self) -> Vec<T> {
        let list = self.lists.borrow_mut().pop().unwrap_or_default();
        self.room.set(self.room.get() - list.capacity());
        list
    }

    /// Takes back a vector.
    #[inline]
    pub fn give(&self, mut list: Vec<T>) {
        if list.capacity() == 0 {
            return;
        }
        // Cleared before the borrow, because the drop of an element may call this method.
        list.clear();
        let mut lists = self.lists.borrow_mut();
        let room = self.room.get() + list.capacity();
        if lists.len() < self.keep && list.capacity() <= self.largest && room <= self.most {
            self.room.set(room);
            lists.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free: &FreeList<u8>) -> usize {
        free.lists.borrow().iter().map(Vec::capacity).sum()
    }

    #[test]
    fn lists_are_kept_within_every_bound() {
        let free = FreeList::with_bounds(3, 100, 150);
        for capacity in [0, 101] {
            free.give(Vec::with_capacity(capacity));
            assert_eq!(room(&free), 0, "{capacity}");
        }
        free.give(Vec::with_capacity(100));
        free.give(Vec::with_capacity(60));
        assert_eq!(room(&free), 100);
        (0..5).for_each(|_| free.give(vec![1; 10]));
        assert_eq!((free.lists.borrow().len(), room(&free)), (3, 120));
        let taken = [free.take(), free.take(), free.take(), free.take()];
        assert!(taken.iter().all(Vec::is_empty));
        assert_eq!((taken.map(|list| list.capacity()), free.room.get()), ([10, 10, 100, 0], 0));
        free.give(Vec::with_capacity(100));
        assert_eq!(room(&free), 100);
    }
}
