//! Memory for large requests: bodies, the tensors decoded from them and answers that wait for their client, counted over all
//! connections.
//!
//! Small requests are not counted, so that they share no counter; their number is bounded by the connections'.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use headgate_core::error::{Code, Error, Result};

/// Requests below this are not counted, in bytes.
const SMALL: usize = 64 << 10;

/// Bytes in use under a limit.
pub struct ByteBudget {
    used: AtomicUsize,
    limit: usize,
}

/// Bytes taken from a budget, given back when dropped.
pub struct Reserved {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of that many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Takes what a body of `length` bytes and its tensors need; `None` for a small one.
    ///
    /// # Errors
    /// `overloaded` when that is more than what is left.
    pub fn reserve(self: &Arc<Self>, length: usize) -> Result<Option<Reserved>> {
        self.hold(if length < SMALL { 0 } else { length.saturating_mul(2) })
    }

    /// Takes what an answer of `length` bytes holds until its client has read it; `None` for a small one.
    ///
    /// # Errors
    /// As [`ByteBudget::reserve`].
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Result<Option<Reserved>> {
        if bytes < SMALL {
            return Ok(None);
        }
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).map_err(|used| {
            Error::new(
                Code::Overloaded,
                format!("large requests in progress hold {used} of {} bytes; try again later", self.limit),
            )
        })?;
        Ok(Some(Reserved { budget: self.clone(), bytes }))
    }
}

impl Reserved {
    /// Takes another part of the same budget over.
    pub fn join(&mut self, mut other: Reserved) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_share_the_budget_and_give_it_back() {
        let budget = ByteBudget::new(4 * SMALL);
        assert!(budget.reserve(SMALL - 1).unwrap().is_none());
        let first = budget.reserve(SMALL).unwrap();
        let second = budget.reserve(SMALL).unwrap();
        assert_eq!(budget.used(), 4 * SMALL);
        assert_eq!(budget.reserve(SMALL).err().unwrap().code, Code::Overloaded);
        let (mut joined, second) = (first.unwrap(), second.unwrap());
        joined.join(second);
        assert_eq!(budget.used(), 4 * SMALL);
        drop(joined);
        assert_eq!(budget.used(), 0);
        assert_eq!(budget.reserve(usize::MAX).err().unwrap().code, Code::Overloaded);
    }
}
