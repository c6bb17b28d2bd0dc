//! A histogram of durations: log-linear buckets of nanoseconds, with one writer and any number of readers.
//!
//! There are four buckets per power of two, from 256 ns to 69 s. A quantile is the upper bound of its bucket, so it is at most 25 % too
//! high. There are no locks: the only writer loads and stores, and readers see each count whole.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bound of the first bucket, in nanoseconds, as a power of two.
pub const FIRST: u32 = 8;
/// Buckets per power of two, as a power of two.
const SPLIT: u32 = 2;
/// The powers of two after the first bucket.
const OCTAVES: usize = 28;
/// The highest bound of a bucket, as a power of two.
pub const LAST: u32 = FIRST + OCTAVES as u32;
/// The number of buckets. The last one takes all longer durations.
pub const BUCKETS: usize = 1 + (OCTAVES << SPLIT) + 1;

/// A count for each bucket, and the sum of the durations.
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

/// The bucket of a duration: bucket `i` takes durations below [`upper_ns`]`(i)` and not below that of `i - 1`.
fn bucket(ns: u64) -> usize {
    if ns < 1 << FIRST {
        return 0;
    }
    let octave = ns.ilog2();
    let fraction = (ns >> (octave - SPLIT)) as usize & ((1 << SPLIT) - 1);
    (1 + (((octave - FIRST) as usize) << SPLIT) + fraction).min(BUCKETS - 1)
}

/// The upper bound of a bucket, exclusive, in nanoseconds; `None` for the last.
pub fn upper_ns(bucket: usize) -> Option<u64> {
    match bucket {
        0 => Some(1 << FIRST),
        _ if bucket >= BUCKETS - 1 => None,
        _ => {
            let step = bucket as u64 - 1;
            let octave = FIRST + (step >> SPLIT) as u32;
            let fraction = step & ((1 << SPLIT) - 1);
            Some((1 << octave) + (fraction + 1) * (1 << (octave - SPLIT)))
        }
    }
}

impl Histogram {
    /// Counts one duration. Only one thread may call this on a histogram; a second writer would lose counts.
    #[inline]
    pub fn record(&self, ns: u64) {
        let count = &self.counts[bucket(ns)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum_ns.store(self.sum_ns.load(Relaxed) + ns, Relaxed);
    }

    /// Adds the counts to `total`.
    pub fn add_to(&self, total: &mut Counts) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Relaxed);
        }
        total.sum_ns += self.sum_ns.load(Relaxed);
    }
}

/// The counts of one or more histograms at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The count of each bucket.
    pub counts: [u64; BUCKETS],
    /// The sum of all durations, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Counts {
    /// The number of durations.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Counts) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.sum_ns += other.sum_ns;
    }

    /// The counts since `earlier`, which must be earlier counts of the same histograms.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut difference = self.clone();
        for (now, then) in difference.counts.iter_mut().zip(&earlier.counts) {
            *now = now.saturating_sub(*then);
        }
        difference.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        difference
    }

    /// The smallest bound of a bucket, in nanoseconds, below which at least a share `q` of the durations is; `None` if there is none.
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((total as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank && total > 0 {
                return Some(upper_ns(index).unwrap_or(u64::MAX));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_rise_and_the_last_is_open() {
        let bounds: Vec<_> = (0..BUCKETS - 1).map(|index| upper_ns(index).unwrap()).collect();
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(upper_ns(BUCKETS - 1), None);
        assert!(*bounds.last().unwrap() > 60_000_000_000);
    }

    proptest! {
        #[test]
        fn a_duration_lies_in_its_bucket(ns in 0u64..200_000_000_000) {
            let index = bucket(ns);
            prop_assert!(upper_ns(index).is_none_or(|upper| ns < upper));
            prop_assert!(index == 0 || ns >= upper_ns(index - 1).unwrap());
        }
    }

    #[test]
    fn quantiles_and_differences() {
        let histogram = Histogram::default();
        let mut earlier = Counts::default();
        histogram.add_to(&mut earlier);
        assert_eq!(earlier.quantile_ns(0.5), None);
        for ns in 1..=1000u64 {
            histogram.record(ns * 1000);
        }
        let mut now = Counts::default();
        histogram.add_to(&mut now);
        assert_eq!(now.since(&earlier), now);
        assert_eq!(now.since(&now).total(), 0);
        let median = now.quantile_ns(0.5).unwrap();
        assert!((500_000..=625_000).contains(&median), "{median}");
    }
}
