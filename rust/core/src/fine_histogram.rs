//! A histogram of durations that resolves 2 %: 64 linear buckets per power of two, with one writer and any number of readers.
//!
//! Durations below 64 ns have buckets of 1 ns. From there on a bucket is at most 1/64 as wide as its lower bound, so that the upper
//! bound that a quantile returns is at most 1.6 % too high, up to 137 s. A histogram has no bucket at first: the 64 buckets of a power
//! of two (512 bytes) are allocated with the first duration in it, so that a histogram is as large as its durations are spread.
//!
//! Not here: the coarse histogram, whose buckets are all there from the start (`histogram`).

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Buckets per block, as a power of two.
const SPLIT: u32 = 6;
/// Buckets per block.
const PER_BLOCK: usize = 1 << SPLIT;
/// The blocks: one for durations below 64 ns, and one for each power of two above.
const BLOCKS: usize = 32;
/// The number of buckets. The last one takes all longer durations.
pub const FINE_BUCKETS: usize = BLOCKS * PER_BLOCK;

type Block = [AtomicU64; PER_BLOCK];

/// A count for each bucket, and the sum of the durations.
#[derive(Default)]
pub struct FineHistogram {
    blocks: [OnceLock<Box<Block>>; BLOCKS],
    sum_ns: AtomicU64,
}

/// The bucket of a duration: bucket `i` takes durations below [`fine_upper_ns`]`(i)` and not below that of `i - 1`.
fn bucket(ns: u64) -> usize {
    if ns < PER_BLOCK as u64 {
        return ns as usize;
    }
    let octave = ns.ilog2();
    let block = (octave - SPLIT + 1) as usize;
    let within = (ns >> (octave - SPLIT)) as usize & (PER_BLOCK - 1);
    ((block << SPLIT) + within).min(FINE_BUCKETS - 1)
}

/// The upper bound of a bucket, exclusive, in nanoseconds; `None` for the last.
pub fn fine_upper_ns(bucket: usize) -> Option<u64> {
    let (block, within) = (bucket >> SPLIT, (bucket & (PER_BLOCK - 1)) as u64);
    match block {
        _ if bucket >= FINE_BUCKETS - 1 => None,
        0 => Some(within + 1),
        _ => Some((PER_BLOCK as u64 + within + 1) << (block - 1)),
    }
}

impl FineHistogram {
    /// Counts one duration. Only one thread may call this on a histogram; a second writer would lose counts.
    #[inline]
    pub fn record(&self, ns: u64) {
        let bucket = bucket(ns);
        let block =
            self.blocks[bucket >> SPLIT].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        let count = &block[bucket & (PER_BLOCK - 1)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum_ns.store(self.sum_ns.load(Relaxed) + ns, Relaxed);
    }

    /// Adds the counts to `total`.
    pub fn add_to(&self, total: &mut FineCounts) {
        for (index, block) in self.blocks.iter().enumerate() {
            let Some(block) = block.get() else { continue };
            for (within, count) in block.iter().enumerate() {
                total.add_bucket((index << SPLIT) + within, count.load(Relaxed));
            }
        }
        total.sum_ns += self.sum_ns.load(Relaxed);
    }

    /// Bytes of the blocks that are there.
    pub fn block_bytes(&self) -> usize {
        self.blocks.iter().filter(|block| block.get().is_some()).count() * size_of::<Block>()
    }
}

/// The counts of one or more histograms at one moment: the buckets that are not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FineCounts {
    /// The count of each bucket that is not empty, by its place.
    pub counts: BTreeMap<u16, u64>,
    /// The sum of all durations, in nanoseconds.
    pub sum_ns: u64,
}

impl FineCounts {
    fn add_bucket(&mut self, bucket: usize, count: u64) {
        if count > 0 {
            *self.counts.entry(bucket as u16).or_insert(0) += count;
        }
    }

    /// The counts of buckets that are told by their upper bounds ([`fine_upper_ns`]).
    pub fn from_uppers(buckets: impl IntoIterator<Item = (Option<u64>, u64)>, sum_ns: u64) -> FineCounts {
        let mut counts = FineCounts { counts: BTreeMap::new(), sum_ns };
        for (upper, count) in buckets {
            counts.add_bucket(upper.map_or(FINE_BUCKETS - 1, |upper| bucket(upper.saturating_sub(1))), count);
        }
        counts
    }

    /// The number of durations.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &FineCounts) {
        for (&bucket, &count) in &other.counts {
            self.add_bucket(usize::from(bucket), count);
        }
        self.sum_ns += other.sum_ns;
    }

    /// The counts since `earlier`, which must be earlier counts of the same histograms.
    pub fn since(&self, earlier: &FineCounts) -> FineCounts {
        let mut difference =
            FineCounts { counts: BTreeMap::new(), sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns) };
        for (&bucket, &count) in &self.counts {
            let then = earlier.counts.get(&bucket).copied().unwrap_or(0);
            difference.add_bucket(usize::from(bucket), count.saturating_sub(then));
        }
        difference
    }

    /// The smallest bound of a bucket, in nanoseconds, below which at least a share `q` of the durations is; `None` if there is none.
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((total as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        for (&bucket, count) in &self.counts {
            below += count;
            if below >= rank {
                return Some(fine_upper_ns(usize::from(bucket)).unwrap_or(u64::MAX));
            }
        }
        None
    }

    /// The number of durations below each power of two from `first` to `last`, as exponents.
    pub fn below_powers(&self, first: u32, last: u32) -> Vec<(u64, u64)> {
        let mut counts = self.counts.iter().peekable();
        let mut below = 0;
        let bounds = (first..=last).map(|power| 1u64 << power);
        bounds
            .map(|bound| {
                while let Some((_, count)) = counts.next_if(|(bucket, _)| {
                    fine_upper_ns(usize::from(**bucket)).is_some_and(|upper| upper <= bound)
                }) {
                    below += count;
                }
                (bound, below)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_rise_by_at_most_two_percent_and_the_last_is_open() {
        let bounds: Vec<_> = (0..FINE_BUCKETS - 1).map(|index| fine_upper_ns(index).unwrap()).collect();
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        for pair in bounds.windows(2).filter(|pair| pair[0] >= 64) {
            assert!((pair[1] - pair[0]) as f64 <= 0.02 * pair[0] as f64, "{pair:?}");
        }
        assert_eq!(fine_upper_ns(FINE_BUCKETS - 1), None);
        assert!(*bounds.last().unwrap() > 130_000_000_000);
    }

    #[test]
    fn a_histogram_grows_with_the_spread_of_its_durations() {
        let histogram = FineHistogram::default();
        assert_eq!(histogram.block_bytes(), 0);
        (0..1000).for_each(|_| histogram.record(5_000));
        assert_eq!(histogram.block_bytes(), 512);
        histogram.record(9_000);
        assert_eq!(histogram.block_bytes(), 1024);
    }

    proptest! {
        #[test]
        fn a_duration_lies_in_its_bucket(ns in 0u64..400_000_000_000) {
            let index = bucket(ns);
            prop_assert!(fine_upper_ns(index).is_none_or(|upper| ns < upper));
            prop_assert!(index == 0 || ns >= fine_upper_ns(index - 1).unwrap());
        }

        /// The bound that the histogram exists for: each quantile is at least the exact one, and less than 2 % above it.
        #[test]
        fn a_quantile_is_at_most_two_percent_too_high(
            mut durations in proptest::collection::vec(64u64..100_000_000_000, 1..400),
            q in 0.0f64..=1.0,
        ) {
            let histogram = FineHistogram::default();
            durations.iter().for_each(|&ns| histogram.record(ns));
            let mut counts = FineCounts::default();
            histogram.add_to(&mut counts);
            durations.sort_unstable();
            let rank = ((durations.len() as f64 * q).ceil() as usize).max(1);
            let (exact, told) = (durations[rank - 1] as f64, counts.quantile_ns(q).unwrap() as f64);
            prop_assert!(told >= exact && told <= exact * 1.02, "{told} for {exact}");
        }

        #[test]
        fn counts_add_up_and_subtract(
            first in proptest::collection::vec(0u64..1_000_000_000, 0..60),
            second in proptest::collection::vec(0u64..1_000_000_000, 0..60),
        ) {
            let histogram = FineHistogram::default();
            let read = || {
                let mut counts = FineCounts::default();
                histogram.add_to(&mut counts);
                counts
            };
            first.iter().for_each(|&ns| histogram.record(ns));
            let earlier = read();
            second.iter().for_each(|&ns| histogram.record(ns));
            let newer = read().since(&earlier);
            prop_assert_eq!(newer.total(), second.len() as u64);
            prop_assert_eq!(newer.sum_ns, second.iter().sum::<u64>());
            let mut sum = earlier;
            sum.add(&newer);
            prop_assert_eq!(&sum, &read());
            let uppers = sum.counts.iter().map(|(&bucket, &count)| (fine_upper_ns(usize::from(bucket)), count));
            prop_assert_eq!(FineCounts::from_uppers(uppers, sum.sum_ns), sum);
        }

        #[test]
        fn powers_of_two_are_bounds_of_buckets(durations in proptest::collection::vec(0u64..1_000_000_000_000, 0..60)) {
            let histogram = FineHistogram::default();
            durations.iter().for_each(|&ns| histogram.record(ns));
            let mut counts = FineCounts::default();
            histogram.add_to(&mut counts);
            for (bound, below) in counts.below_powers(8, 36) {
                prop_assert_eq!(below, durations.iter().filter(|&&ns| ns < bound).count() as u64, "below {}", bound);
            }
        }
    }
}
