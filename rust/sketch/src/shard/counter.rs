//! Counters, which one writer increments with plain loads and stores.
//!
//! Atomics only make sharing sound. The order comes from the flip, so that `Relaxed` suffices, and costs as much as plain memory.
//! Next: `table`.

use crate::sync::{AtomicU64, Ordering};

/// Two counters side by side: count and sum of a slot, or two of the header.
#[derive(Debug)]
pub(crate) struct CounterPair {
    pub(crate) a: AtomicU64,
    pub(crate) b: AtomicU64,
}

/// Adds `by`. There is one writer, so that a load and a store lose no count.
#[inline]
pub(crate) fn increment(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Adds to a counter that holds the bits of an `f64`.
#[inline]
pub(crate) fn add_f64(counter: &AtomicU64, value: f64) {
    store_f64(counter, load_f64(counter) + value);
}

#[inline]
pub(crate) fn load_f64(counter: &AtomicU64) -> f64 {
    f64::from_bits(counter.load(Ordering::Relaxed))
}

#[inline]
pub(crate) fn store_f64(counter: &AtomicU64, value: f64) {
    counter.store(value.to_bits(), Ordering::Relaxed);
}

/// Reads a counter and sets it to 0. Most counters of a feature with little traffic are 0, and need no store.
pub(crate) fn take(counter: &AtomicU64) -> u64 {
    let value = counter.load(Ordering::Relaxed);
    if value != 0 {
        counter.store(0, Ordering::Relaxed);
    }
    value
}
