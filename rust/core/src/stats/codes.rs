//! Counts of ordered codes, batch by batch: what intervals and verdicts of correlated requests are made from.
//!
//! A code stands for a duration; a greater code is a longer one. Requests are in the order of their due times. They are
//! split into [`BATCHES`] batches of one size, however many there are: a batch that grows with the data becomes longer
//! than a burst, and a batch of a fixed size does not. Nothing is sorted, so that ten million codes take a few hundredths
//! of a second.
//!
//! Next: [`super::quantile`], [`super::verdict`].

/// The code of a request without a good answer: slower than any answer.
pub const SLOWER_THAN_ANY: u16 = u16::MAX;
/// The number of batches.
pub const BATCHES: usize = 20;
/// The quantiles at which the inflation is estimated besides that in question: the body of a distribution shows
/// correlation that its tail has too few requests to show.
const BODY: [f64; 2] = [0.9, 0.5];

/// How often each code occurs in each batch.
#[derive(Clone, Debug)]
pub struct BatchCounts {
    sizes: [u64; BATCHES],
    /// The least code.
    first: u16,
    /// The number of codes from the least to the greatest but [`SLOWER_THAN_ANY`].
    width: usize,
    /// At `batch * width + i`: how many of the batch have at most the code `first + i`.
    cumulative: Vec<u32>,
}

impl BatchCounts {
    /// Counts codes that are in the order of their requests' due times; at most 2^32 of them.
    #[must_use]
    pub fn of(codes: &[u16]) -> BatchCounts {
        let (first, last) = codes
            .iter()
            .filter(|&&code| code != SLOWER_THAN_ANY)
            .fold((u16::MAX, u16::MIN), |(least, greatest), &code| (least.min(code), greatest.max(code)));
        let width = if first > last { 0 } else { usize::from(last - first) + 1 };
        let mut cumulative = vec![0_u32; BATCHES * width];
        let bounds: [usize; BATCHES + 1] =
            std::array::from_fn(|batch| (codes.len() as u64 * batch as u64 / BATCHES as u64) as usize);
        for batch in 0..BATCHES {
            let counts = &mut cumulative[batch * width..(batch + 1) * width];
            for &code in &codes[bounds[batch]..bounds[batch + 1]] {
                if code != SLOWER_THAN_ANY {
                    counts[usize::from(code - first)] += 1;
                }
            }
            let mut sum = 0;
            for count in counts {
                sum += *count;
                *count = sum;
            }
        }
        let sizes = std::array::from_fn(|batch| (bounds[batch + 1] - bounds[batch]) as u64);
        BatchCounts { sizes, first, width, cumulative }
    }

    /// The number of codes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// How many have at most that code.
    #[must_use]
    pub fn at_most(&self, code: u16) -> u64 {
        (0..BATCHES).map(|batch| self.batch_at_most(batch, code)).sum()
    }

    /// How many have a greater code.
    #[must_use]
    pub fn slower_than(&self, code: u16) -> u64 {
        self.total() - self.at_most(code)
    }

    /// The code at a place of the sorted codes, from 1 on; [`SLOWER_THAN_ANY`] behind the last.
    #[must_use]
    pub fn at_rank(&self, rank: u64) -> u16 {
        let (mut low, mut high) = (0, self.width);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.at_most(self.first + middle as u16) >= rank { high = middle } else { low = middle + 1 }
        }
        if low == self.width { SLOWER_THAN_ANY } else { self.first + low as u16 }
    }

    /// The least code that at least a share `p` does not exceed; `None` if there are no codes.
    #[must_use]
    pub fn quantile(&self, p: f64) -> Option<u16> {
        (self.total() > 0).then(|| self.at_rank(quantile_rank(self.total(), p)))
    }

    /// The quantile `p` within one batch; `None` if it has no codes.
    #[must_use]
    pub fn batch_quantile(&self, batch: usize, p: f64) -> Option<u16> {
        let size = self.sizes[batch];
        let rank = quantile_rank(size, p);
        let counts = &self.cumulative[batch * self.width..(batch + 1) * self.width];
        let place = counts.partition_point(|&count| u64::from(count) < rank);
        let code = if place == self.width { SLOWER_THAN_ANY } else { self.first + place as u16 };
        (size > 0).then_some(code)
    }

    /// How many times as much the share above `level` varies between batches as it would for independent requests: the
    /// variance of its estimate is that many times `share * (1 - share) / total`. At least 1; `None` with fewer codes than
    /// batches.
    ///
    /// The largest of six estimates: at `level`, p90 and p50, each from the batches and from pairs of them. If pairs show
    /// more than the batches, a batch is shorter than the correlation lasts.
    #[must_use]
    pub fn inflation(&self, level: u16) -> Option<f64> {
        if self.total() < BATCHES as u64 {
            return None;
        }
        let body = BODY.iter().filter_map(|&p| self.quantile(p));
        Some(body.chain([level]).fold(1.0, |largest, level| self.inflation_at(level).max(largest)))
    }

    fn inflation_at(&self, level: u16) -> f64 {
        let slower: [u64; BATCHES] =
            std::array::from_fn(|batch| self.sizes[batch] - self.batch_at_most(batch, level));
        let share = slower.iter().sum::<u64>() as f64 / self.total() as f64;
        if share == 0.0 || share == 1.0 {
            return 1.0;
        }
        let of = |together: usize| {
            let shares = slower.chunks(together).zip(self.sizes.chunks(together));
            let shares = shares.map(|(slower, sizes)| ratio(slower.iter().sum(), sizes.iter().sum()));
            let count = (BATCHES / together) as f64;
            let squares: f64 = shares.map(|of_batch| (of_batch - share).powi(2)).sum();
            let size = self.total() as f64 / count;
            size * squares / (count - 1.0) / (share * (1.0 - share))
        };
        of(1).max(of(2))
    }

    fn batch_at_most(&self, batch: usize, code: u16) -> u64 {
        if code == SLOWER_THAN_ANY {
            return self.sizes[batch];
        }
        match code.checked_sub(self.first) {
            Some(place) if self.width > 0 => {
                let place = usize::from(place).min(self.width - 1);
                u64::from(self.cumulative[batch * self.width + place])
            }
            _ => 0,
        }
    }
}

/// The place of the quantile `p` among `total` sorted values, from 1 on.
#[must_use]
pub fn quantile_rank(total: u64, p: f64) -> u64 {
    // 0.95 * 20 is 19, and a little more in floating point; the next place would be a quantile of more.
    let exact = total as f64 * p;
    let rank = if (exact - exact.round()).abs() < 1e-9 * exact { exact.round() } else { exact.ceil() };
    (rank as u64).clamp(1, total.max(1))
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    #[test]
    fn codes_are_counted_and_found_by_rank() {
        let codes: Vec<u16> = (1..=100).rev().collect();
        let counts = BatchCounts::of(&codes);
        assert_eq!(
            (counts.total(), counts.at_most(0), counts.at_most(37), counts.at_most(500)),
            (100, 0, 37, 100)
        );
        assert_eq!(
            (counts.quantile(0.5), counts.quantile(0.99), counts.quantile(1.0)),
            (Some(50), Some(99), Some(100))
        );
        assert_eq!(counts.slower_than(99), 1);
        assert_eq!((counts.batch_quantile(0, 0.5), counts.batch_quantile(19, 1.0)), (Some(98), Some(5)));
        assert_eq!(quantile_rank(20, 0.95), 19);
    }

    #[test]
    fn what_has_no_answer_is_slower_than_any() {
        let mut codes = vec![7_u16; 90];
        codes.extend([SLOWER_THAN_ANY; 10]);
        let counts = BatchCounts::of(&codes);
        assert_eq!((counts.quantile(0.9), counts.quantile(0.91)), (Some(7), Some(SLOWER_THAN_ANY)));
        assert_eq!(
            (counts.slower_than(7), counts.slower_than(u16::MAX - 1), counts.slower_than(u16::MAX)),
            (10, 10, 0)
        );
        let none = BatchCounts::of(&[SLOWER_THAN_ANY; 30]);
        assert_eq!(
            (none.quantile(0.5), none.slower_than(3), none.inflation(3)),
            (Some(SLOWER_THAN_ANY), 30, Some(1.0))
        );
        let empty = BatchCounts::of(&[]);
        assert_eq!((empty.total(), empty.quantile(0.5), empty.inflation(1)), (0, None, None));
    }

    #[test]
    fn the_inflation_is_that_of_the_batches_means() {
        // In every second batch of ten all are slow: the variance of a batch's share is 1/4 * 20/19, and not 1/4 / 10.
        let codes: Vec<u16> = (0..200).map(|at| if at / 10 % 2 == 0 { 1 } else { 9 }).collect();
        close(BatchCounts::of(&codes).inflation(5).unwrap(), 10.0 * 20.0 / 19.0, 1e-12);
        // Pairs of batches that are alike show twice as much.
        let codes: Vec<u16> = (0..200).map(|at| if at / 20 % 2 == 0 { 1 } else { 9 }).collect();
        close(BatchCounts::of(&codes).inflation(5).unwrap(), 20.0 * 10.0 / 9.0, 1e-12);
        assert_eq!(BatchCounts::of(&[3; 200]).inflation(3), Some(1.0));
    }

    proptest! {
        #[test]
        fn ranks_are_those_of_sorted_codes(codes in prop::collection::vec(prop_oneof![9 => 0_u16..500, 1 => Just(SLOWER_THAN_ANY)], 1..400)) {
            let counts = BatchCounts::of(&codes);
            let mut sorted = codes.clone();
            sorted.sort_unstable();
            for (at, &code) in sorted.iter().enumerate() {
                prop_assert_eq!(counts.at_rank(at as u64 + 1), code);
                prop_assert_eq!(counts.at_most(code), sorted.iter().filter(|&&other| other <= code).count() as u64);
            }
        }

        #[test]
        fn the_inflation_depends_on_the_order_of_codes_alone(codes in prop::collection::vec(0_u16..100, 20..400), level in 0_u16..100) {
            let stretched: Vec<u16> = codes.iter().map(|code| code * code + 11).collect();
            let (plain, other) = (BatchCounts::of(&codes), BatchCounts::of(&stretched));
            prop_assert_eq!(plain.inflation(level), other.inflation(level * level + 11));
            prop_assert!(plain.inflation(level).unwrap() >= 1.0);
        }
    }
}
