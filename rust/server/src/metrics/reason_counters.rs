//! Counters by reason.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// A closed set of reasons, which are the values of a label.
pub trait ReasonLabel: Copy + 'static {
    /// All reasons.
    const ALL: &'static [Self];

    /// The value of the label.
    fn name(self) -> &'static str;

    /// The index in [`ReasonLabel::ALL`].
    fn index(self) -> usize;
}

/// A counter for each reason, which any thread may use.
pub struct ReasonCounters<R>(Box<[AtomicU64]>, PhantomData<R>);

impl<R: ReasonLabel> Default for ReasonCounters<R> {
    fn default() -> Self {
        ReasonCounters(R::ALL.iter().map(|_| AtomicU64::new(0)).collect(), PhantomData)
    }
}

impl<R: ReasonLabel> ReasonCounters<R> {
    /// Adds one.
    pub fn add(&self, reason: R) {
        self.0[reason.index()].fetch_add(1, Relaxed);
    }

    /// The count of a reason.
    pub fn get(&self, reason: R) -> u64 {
        self.0[reason.index()].load(Relaxed)
    }

    /// The samples of the metric.
    pub fn samples(&self) -> impl Iterator<Item = Value> {
        R::ALL.iter().map(|&reason| json!([{"reason": reason.name()}, self.get(reason)]))
    }
}
