//! Free items that other threads give back to one thread. No thread waits for another one: a thread that the system interrupts in the middle
//! of [`RemoteFreeList::give`] hides the one item that it gives, and nothing else.
//!
//! Each slot has a pointer and a bit. The bit says that the slot may have an item, so that a look into an empty list reads four words. The
//! pointers alone say who owns an item: a thread that puts one into an empty slot gives it, and a thread that takes it out of the slot has
//! it. So a bit that is wrong for a moment costs a look.
#![allow(
    unsafe_code,
    reason = "a box is handed from thread to thread as a pointer, because a lock would make its taker wait"
)]

use std::marker::PhantomData;
use std::ptr::null_mut;

use crate::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The slots of a word.
const WORD: usize = u64::BITS as usize;

/// A free list with as many slots as `WORDS` words have bits.
pub(crate) struct RemoteFreeList<T, const WORDS: usize> {
    /// The bits of the slots.
    filled: [AtomicU64; WORDS],
    slots: Box<[AtomicPtr<T>]>,
    /// It owns the items.
    _items: PhantomData<Box<T>>,
}

impl<T, const WORDS: usize> RemoteFreeList<T, WORDS> {
    /// An empty list.
    pub(crate) fn new() -> RemoteFreeList<T, WORDS> {
        RemoteFreeList {
            filled: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: (0..WORDS * WORD).map(|_| AtomicPtr::new(null_mut())).collect(),
            _items: PhantomData,
        }
    }

    /// Puts an item into a free slot.
    ///
    /// # Errors
    /// The item, if there is none.
    pub(crate) fn give(&self, item: Box<T>) -> Result<(), Box<T>> {
        let item = Box::into_raw(item);
        for (word, filled) in self.filled.iter().enumerate() {
            let mut free = !filled.load(Relaxed);
            while free != 0 {
                let bit = free & free.wrapping_neg();
                free ^= bit;
                let slot = &self.slots[word * WORD + bit.trailing_zeros() as usize];
                if slot.compare_exchange(null_mut(), item, Release, Relaxed).is_ok() {
                    filled.fetch_or(bit, Release);
                    return Ok(());
                }
            }
        }
        // SAFETY: the pointer is that of the box above, and no slot has it.
        Err(unsafe { Box::from_raw(item) })
    }

    /// Takes an item out of its slot.
    #[inline]
    pub(crate) fn take(&self) -> Option<Box<T>> {
        for (word, filled) in self.filled.iter().enumerate() {
            loop {
                let seen = filled.load(Relaxed);
                if seen == 0 {
                    break;
                }
                let bit = seen & seen.wrapping_neg();
                // Before the slot is empty, so that the bit of an item that comes next stays.
                filled.fetch_and(!bit, AcqRel);
                let item = self.slots[word * WORD + bit.trailing_zeros() as usize].swap(null_mut(), Acquire);
                if !item.is_null() {
                    // SAFETY: `give` made the pointer from a box, and the swap took it out of the only slot that had it.
                    return Some(unsafe { Box::from_raw(item) });
                }
            }
        }
        None
    }
}

impl<T, const WORDS: usize> Drop for RemoteFreeList<T, WORDS> {
    fn drop(&mut self) {
        for slot in &self.slots {
            let item = slot.swap(null_mut(), Acquire);
            if !item.is_null() {
                // SAFETY: as in `take`.
                drop(unsafe { Box::from_raw(item) });
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_list_returns_the_item_and_a_dropped_one_drops_its_items() {
        let (list, item) = (RemoteFreeList::<Arc<()>, 2>::new(), Arc::new(()));
        for _ in 0..2 * WORD {
            assert!(list.give(Box::new(item.clone())).is_ok());
        }
        assert!(list.give(Box::new(item.clone())).is_err());
        assert_eq!(Arc::strong_count(&item), 2 * WORD + 1);
        assert!(list.take().is_some() && list.give(Box::new(item.clone())).is_ok());
        drop(list);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    proptest! {
        #[test]
        fn what_is_given_is_taken_once(steps: Vec<bool>) {
            let list = RemoteFreeList::<usize, 1>::new();
            let mut inside = std::collections::HashSet::new();
            for (number, gives) in steps.into_iter().enumerate() {
                if gives {
                    prop_assert_eq!(list.give(Box::new(number)).is_ok(), inside.len() < WORD);
                    if inside.len() < WORD {
                        inside.insert(number);
                    }
                } else {
                    match list.take() {
                        Some(item) => prop_assert!(inside.remove(&*item)),
                        None => prop_assert!(inside.is_empty()),
                    }
                }
            }
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn taken<const WORDS: usize>(list: &RemoteFreeList<usize, WORDS>) -> Vec<usize> {
        std::iter::from_fn(|| list.take()).map(|item| *item).collect()
    }

    /// Whatever the order: each item is taken once, and none is lost.
    fn run(givers: usize, takers: usize) {
        loom::model(move || {
            let list = Arc::new(RemoteFreeList::<usize, 1>::new());
            let give = |item| {
                let list = list.clone();
                thread::spawn(move || list.give(Box::new(item)).is_ok())
            };
            let take = || {
                let list = list.clone();
                thread::spawn(move || list.take().map(|item| *item))
            };
            let takers: Vec<_> = (1..takers).map(|_| take()).collect();
            let givers: Vec<_> = (0..givers).map(give).collect();
            let mut found: Vec<usize> = list.take().map(|item| *item).into_iter().collect();
            let given = givers.into_iter().map(|giver| giver.join().unwrap());
            let given = given.filter(|&is_given| is_given).count();
            found.extend(takers.into_iter().filter_map(|taker| taker.join().unwrap()));
            found.extend(taken(&list));
            found.sort_unstable();
            assert_eq!(found, (0..given).collect::<Vec<_>>());
        });
    }

    #[test]
    fn two_threads_give_and_one_takes() {
        run(2, 1);
    }

    #[test]
    fn one_thread_gives_and_two_take() {
        run(1, 2);
    }

    /// The slot of an item that was just taken is used again while another thread still looks at its bit.
    #[test]
    fn a_slot_is_used_again() {
        loom::model(|| {
            let list = Arc::new(RemoteFreeList::<usize, 1>::new());
            assert!(list.give(Box::new(0)).is_ok());
            let other = {
                let list = list.clone();
                thread::spawn(move || (list.take().map(|item| *item), list.give(Box::new(1)).is_ok()))
            };
            let mut found: Vec<usize> = list.take().map(|item| *item).into_iter().collect();
            let (item, is_given) = other.join().unwrap();
            assert!(is_given);
            found.extend(item);
            found.extend(taken(&list));
            found.sort_unstable();
            assert_eq!(found, [0, 1]);
        });
    }
}
