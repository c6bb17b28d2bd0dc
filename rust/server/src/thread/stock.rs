//! Empty lists that a thread keeps for the next request, within bounds: what one large answer took is not kept for ever.

use std::cell::{Cell, RefCell};

use http::{HeaderName, HeaderValue};

/// A thread's stock of empty lists of `T`.
pub struct Stock<T> {
    lists: RefCell<Vec<Vec<T>>>,
    /// The elements that there is room for in all of them.
    room: Cell<usize>,
    /// Lists that are kept at most.
    keep: usize,
    /// A list with room for more is freed instead of kept.
    largest: usize,
    /// The most room in all of them.
    most: usize,
}

impl Stock<u8> {
    /// Buffers for answers: many and small.
    pub fn of_replies() -> Self {
        Stock::of(256, 1 << 20, 8 << 20)
    }

    /// Buffers for bodies that come in pieces: few and large.
    pub fn of_bodies() -> Self {
        Stock::of(8, 4 << 20, 16 << 20)
    }
}

impl Stock<(HeaderName, HeaderValue)> {
    /// Lists for the header fields of answers.
    pub fn of_fields() -> Self {
        Stock::of(16, 64, 16 * 64)
    }
}

impl<T> Stock<T> {
    /// A stock of at most `keep` lists with room for at most `largest` elements each and `most` in all.
    pub fn of(keep: usize, largest: usize, most: usize) -> Self {
        Stock { lists: RefCell::default(), room: Cell::new(0), keep, largest, most }
    }

    /// An empty list.
    pub fn take(&self) -> Vec<T> {
        let list = self.lists.borrow_mut().pop().unwrap_or_default();
        self.room.set(self.room.get() - list.capacity());
        list
    }

    /// Takes a list back.
    pub fn give(&self, mut list: Vec<T>) {
        // The elements may come here when they are dropped; the stock is not borrowed then.
        list.clear();
        let mut kept = self.lists.borrow_mut();
        let room = self.room.get() + list.capacity();
        if kept.len() < self.keep && (1..=self.largest).contains(&list.capacity()) && room <= self.most {
            self.room.set(room);
            kept.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(stock: &Stock<u8>) -> usize {
        stock.lists.borrow().iter().map(Vec::capacity).sum()
    }

    #[test]
    fn lists_are_kept_within_every_bound() {
        let stock = Stock::of(3, 100, 150);
        for capacity in [0, 101] {
            stock.give(Vec::with_capacity(capacity));
            assert_eq!(room(&stock), 0, "{capacity}");
        }
        stock.give(Vec::with_capacity(100));
        stock.give(Vec::with_capacity(60));
        assert_eq!(room(&stock), 100);
        (0..5).for_each(|_| stock.give(vec![1; 10]));
        assert_eq!((stock.lists.borrow().len(), room(&stock)), (3, 120));
        let taken = [stock.take(), stock.take(), stock.take(), stock.take()];
        assert!(taken.iter().all(Vec::is_empty));
        assert_eq!((taken.map(|list| list.capacity()), stock.room.get()), ([10, 10, 100, 0], 0));
        stock.give(Vec::with_capacity(100));
        assert_eq!(room(&stock), 100);
    }
}
