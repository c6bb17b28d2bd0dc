//! Durations without an order: their quantiles, mean and greatest.

use headgate_core::stats::codes::quantile_rank;

use crate::records::{CODES, SLOWER_THAN_ANY, highest_ns, lowest_ns};

/// The duration that stands for a code where durations are summed: the middle, in nanoseconds.
pub(super) fn middle_ns(code: u16) -> u64 {
    u64::midpoint(lowest_ns(code), highest_ns(code))
}

/// How often each code occurs.
pub(super) struct Distribution {
    counts: Vec<u32>,
    slower: u64,
    total: u64,
}

impl Distribution {
    /// No codes.
    pub(super) fn new() -> Distribution {
        Distribution { counts: vec![0; CODES], slower: 0, total: 0 }
    }

    /// Removes all codes.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        (self.slower, self.total) = (0, 0);
    }

    /// Counts a code.
    pub(super) fn add(&mut self, code: u16) {
        self.total += 1;
        match self.counts.get_mut(usize::from(code)) {
            Some(count) => *count += 1,
            None => self.slower += 1,
        }
    }

    /// The quantile `p`; `None` without codes.
    pub(super) fn quantile(&self, p: f64) -> Option<u16> {
        let rank = quantile_rank(self.total, p);
        let mut seen = 0;
        let place = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        });
        (self.total > 0).then(|| place.map_or(SLOWER_THAN_ANY, |place| place as u16))
    }

    /// The mean of the good answers, in nanoseconds; `None` without any.
    pub(super) fn mean_ns(&self) -> Option<u64> {
        let good = u128::from(self.total - self.slower);
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let sum: u128 =
            counts.map(|(code, &count)| u128::from(middle_ns(code as u16)) * u128::from(count)).sum();
        (good > 0).then(|| (sum / good) as u64)
    }

    /// The slowest good answer, in nanoseconds; `None` without any.
    pub(super) fn max_ns(&self) -> Option<u64> {
        self.counts.iter().rposition(|&count| count > 0).map(|code| highest_ns(code as u16))
    }
}
