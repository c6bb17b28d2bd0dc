//! Counters by reason.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// A closed set of reasons.
pub trait ReasonLabel: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The label's value.
    fn name(self) -> &'static str;

    /// Its place in [`ReasonLabel::ALL`].
    fn index(self) -> usize;
}

/// How often each reason came, counted by any thread.
pub struct ReasonCounters<R>(Box<[AtomicU64]>, PhantomData<R>);

impl<R: ReasonLabel> Default for ReasonCounters<R> {
    fn default() -> Self {
        ReasonCounters(R::ALL.iter().map(|_| AtomicU64::new(0)).collect(), PhantomData)
    }
}

impl<R: ReasonLabel> ReasonCounters<R> {
    /// One more.
    pub fn add(&self, reason: R) {
        self.0[reason.index()].fetch_add(1, Relaxed);
    }

    /// How many for that reason.
    pub fn get(&self, reason: R) -> u64 {
        self.0[reason.index()].load(Relaxed)
    }

    /// The samples of the metric.
    pub fn samples(&self) -> impl Iterator<Item = Value> {
        R::ALL.iter().map(|&reason| json!([{"reason": reason.name()}, self.get(reason)]))
    }
}
