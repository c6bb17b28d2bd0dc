//! The memory that all sketches together may use: shards, windows, plans and baselines. A request for memory is cheap, never waits,
//! and may be refused.
//!
//! The memory that a version needs to count at all may use the whole limit. Memory that only makes counts finer (more buckets, more
//! sub-windows) leaves the last quarter free, so that values with many buckets cannot prevent another version from counting.
//! Next: `shard`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit in bytes and the bytes in use. All versions share it.
#[derive(Debug)]
pub struct SketchBudget {
    limit: usize,
    used: AtomicUsize,
}

impl SketchBudget {
    /// A budget of this many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes allowed.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// Bytes taken from a budget. They are given back on drop.
#[derive(Debug)]
pub struct BudgetShare {
    budget: Arc<SketchBudget>,
    bytes: AtomicUsize,
}

impl BudgetShare {
    /// An empty share.
    pub fn new(budget: Arc<SketchBudget>) -> Self {
        Self { budget, bytes: AtomicUsize::new(0) }
    }

    /// Takes `bytes` more. Returns false, and takes nothing, if the budget does not have them.
    pub fn grow(&self, bytes: usize) -> bool {
        self.grow_to(bytes, self.budget.limit)
    }

    /// As [`BudgetShare::grow`], for memory that makes counts finer: the last quarter of the budget stays free.
    pub fn grow_optional(&self, bytes: usize) -> bool {
        self.grow_to(bytes, self.budget.limit / 4 * 3)
    }

    fn grow_to(&self, bytes: usize, limit: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= limit);
        if self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Takes `bytes` more regardless of the limit, for memory that is allocated already.
    pub fn grow_unchecked(&self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Changes the share to this many bytes. Missing bytes are taken as by [`BudgetShare::grow_optional`].
    pub fn resize(&mut self, bytes: usize) -> bool {
        let present = self.bytes();
        if bytes > present {
            return self.grow_optional(bytes - present);
        }
        self.budget.used.fetch_sub(present - bytes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        true
    }

    /// The budget of the share.
    pub fn budget(&self) -> &Arc<SketchBudget> {
        &self.budget
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_refused_beyond_the_limit_and_given_back() {
        let budget = SketchBudget::new(100);
        let share = BudgetShare::new(Arc::clone(&budget));
        assert!(share.grow(60) && !share.grow(41) && share.grow(40));
        assert_eq!((budget.used(), share.bytes(), budget.limit()), (100, 100, 100));
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_makes_counts_finer_leaves_a_quarter_free() {
        let budget = SketchBudget::new(100);
        let mut finer = BudgetShare::new(Arc::clone(&budget));
        assert!(finer.resize(75) && !finer.resize(76) && !finer.grow_optional(1));
        let share = BudgetShare::new(Arc::clone(&budget));
        assert!(share.grow(25));
        assert!(finer.resize(10) && share.grow(65));
        share.grow_unchecked(5);
        assert_eq!(budget.used(), 105, "what is held counts, whatever the limit");
    }
}
