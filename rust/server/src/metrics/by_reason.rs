//! Counters by reason.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// A closed set of reasons.
pub trait Labelled: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The label's value.
    fn name(self) -> &'static str;

    /// Its place in [`Labelled::ALL`].
    fn place(self) -> usize;
}

/// How often each reason came, counted by any thread.
pub struct ByReason<R>(Box<[AtomicU64]>, PhantomData<R>);

impl<R: Labelled> Default for ByReason<R> {
    fn default() -> Self {
        ByReason(R::ALL.iter().map(|_| AtomicU64::new(0)).collect(), PhantomData)
    }
}

impl<R: Labelled> ByReason<R> {
    /// One more.
    pub fn add(&self, reason: R) {
        self.0[reason.place()].fetch_add(1, Relaxed);
    }

    /// How many for that reason.
    pub fn get(&self, reason: R) -> u64 {
        self.0[reason.place()].load(Relaxed)
    }

    /// The samples of the metric.
    pub fn samples(&self) -> impl Iterator<Item = Value> {
        R::ALL.iter().map(|&reason| json!([{"reason": reason.name()}, self.get(reason)]))
    }
}
