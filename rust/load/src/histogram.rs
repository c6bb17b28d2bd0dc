//! A histogram of durations by their codes, with one writer and any number of readers: 135 kB.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::records::{CODES, code_of, highest_ns};

/// A count for each code, the sum and the largest duration.
pub(crate) struct Histogram {
    counts: Box<[AtomicU32]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: (0..CODES).map(|_| AtomicU32::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts a duration. Only one thread may call this on a histogram; a second writer would lose counts.
    pub(crate) fn record(&self, ns: u64) {
        let count = &self.counts[code_of(ns) as usize];
        count.store(count.load(Relaxed).saturating_add(1), Relaxed);
        self.sum_ns.store(self.sum_ns.load(Relaxed).saturating_add(ns), Relaxed);
        self.max_ns.store(self.max_ns.load(Relaxed).max(ns), Relaxed);
    }
}

/// The sum of histograms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    by_code: Vec<u64>,
    total: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl Counts {
    pub(crate) fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Counts {
        let mut counts = Counts { by_code: vec![0; CODES], ..Counts::default() };
        for histogram in histograms {
            for (sum, count) in counts.by_code.iter_mut().zip(&histogram.counts) {
                *sum += u64::from(count.load(Relaxed));
            }
            counts.sum_ns += histogram.sum_ns.load(Relaxed);
            counts.max_ns = counts.max_ns.max(histogram.max_ns.load(Relaxed));
        }
        counts.total = counts.by_code.iter().sum();
        counts
    }

    /// The counts of codes.
    pub(crate) fn of_codes(codes: impl IntoIterator<Item = u16>) -> Counts {
        let mut counts = Counts { by_code: vec![0; CODES], ..Counts::default() };
        for code in codes {
            counts.by_code[code as usize] += 1;
            counts.total += 1;
            counts.sum_ns += highest_ns(code);
            counts.max_ns = counts.max_ns.max(highest_ns(code));
        }
        counts
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The mean, the quantiles' upper bounds and the maximum are `None` if nothing was counted.
    pub(crate) fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.total)
    }

    pub(crate) fn max_ns(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max_ns)
    }

    pub(crate) fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        self.quantile_of(quantile, self.total)
    }

    /// The quantile of `total` durations of which those that are not counted are longer than all that are; `None` if it is one of these.
    pub(crate) fn quantile_of(&self, quantile: f64, total: u64) -> Option<u64> {
        let rank = ((quantile * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let code = self.by_code.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        // Codes are below 2^16. A bucket may end behind the longest duration.
        code.map(|code| highest_ns(code as u16).min(self.max_ns))
    }

    /// The codes that were counted, with their counts.
    pub(crate) fn by_code(&self) -> impl Iterator<Item = (u16, u64)> {
        self.by_code
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(code, count)| (code as u16, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_sum_are_those_of_all_durations() {
        let [one, other] = [Histogram::default(), Histogram::default()];
        (1..=500).for_each(|ms| one.record(ms * 1_000_000));
        (501..=1000).for_each(|ms| other.record(ms * 1_000_000));
        let counts = Counts::of([&one, &other]);
        for (quantile, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.0, 1.0)] {
            let found = counts.quantile_ns(quantile).unwrap() as f64 / 1e6;
            assert!((found / ms - 1.0).abs() < 0.001, "{quantile}: {found}");
        }
        assert_eq!((counts.mean_ns(), counts.max_ns()), (Some(500_500_000), Some(1_000_000_000)));
        assert_eq!(Counts::default().mean_ns(), None);
        assert_eq!(Counts::of([&one]).quantile_of(0.99, 1000), None);
    }
}
