//! Chooses the rows that are sketched if sketching all of them would cost too much. The choice is by hash, so that inputs and
//! outputs of a request, and all processes, choose the same rows.
//!
//! A row that is sampled at a share of 1/2^h counts 2^h times, so that counts of threads, minutes and versions with different
//! shares add up without bias. `SamplingRate` is the share, `RowSample` chooses rows, and `rate_control` decides the rate.
//! Next: `rate_control`.

/// SplitMix64's output function (Steele, Lea and Flood 2014): every bit of the result depends on every bit of `x`.
#[inline]
pub const fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A share of rows: 1, 1/2, 1/4, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SamplingRate(u8);

impl SamplingRate {
    /// Every row.
    pub const ALL: SamplingRate = SamplingRate(0);
    /// One row in 2^30.
    pub const LOWEST: SamplingRate = SamplingRate(30);

    /// The share `2^-halvings`; more than thirty halvings are thirty.
    pub fn halved(halvings: u8) -> Self {
        Self(halvings.min(Self::LOWEST.0))
    }

    /// The number of halvings: 0 to 30.
    pub fn halvings(self) -> u8 {
        self.0
    }

    /// The share itself.
    pub fn share(self) -> f64 {
        1.0 / f64::from(1u32 << self.0)
    }
}

/// The sampled rows of one request.
///
/// From each block of 2^h rows the request's hash chooses one. If the last block ends before that row, no row of it is chosen, so
/// that every row has the same probability. For a request with fewer rows than a block, see [`RowSample::of_request`].
#[derive(Clone, Copy, Debug)]
pub struct RowSample {
    hash: u64,
    /// Halvings that decide about the request as a whole.
    whole: u8,
    /// Halvings that decide among its rows.
    rate: SamplingRate,
}

impl RowSample {
    /// Every row.
    pub const ALL: RowSample = RowSample { hash: 0, whole: 0, rate: SamplingRate::ALL };

    /// The rows of a request at this rate. The hash is of the request's id, or a random number.
    pub fn new(request_hash: u64, rate: SamplingRate) -> Self {
        Self { hash: request_hash, whole: 0, rate }
    }

    /// As [`RowSample::new`], for a request with this number of rows. As many halvings as possible decide about the request as a
    /// whole, so that most requests with few rows are skipped. Every row of each tensor has the same probability.
    pub fn of_request(request_hash: u64, rate: SamplingRate, rows: usize) -> Self {
        let within = rate.min(SamplingRate::halved(rows.max(1).ilog2() as u8));
        Self { hash: request_hash, whole: rate.0 - within.0, rate: within }
    }

    /// Whether no row of the request is sampled.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.mixed(usize::MAX) & ((1 << self.whole) - 1) != 0
    }

    /// How often a sampled row counts.
    pub fn weight(&self) -> u64 {
        1 << (self.whole + self.rate.0)
    }

    /// The sampled rows among the first `rows`, ascending.
    #[inline]
    pub fn rows(&self, rows: usize) -> impl Iterator<Item = usize> + use<> {
        let (sample, shift) = (*self, self.rate.0);
        let rows = if self.whole > 0 && self.is_none() { 0 } else { rows };
        (0..rows.div_ceil(1 << shift)).filter_map(move |block| {
            let within = if shift == 0 { 0 } else { sample.mixed(block) as usize & ((1 << shift) - 1) };
            let row = (block << shift) + within;
            (row < rows).then_some(row)
        })
    }

    /// The number of sampled rows among the first `rows`, in constant time.
    pub fn count(&self, rows: usize) -> u64 {
        if self.whole > 0 && self.is_none() {
            return 0;
        }
        let (shift, mask) = (self.rate.0, (1usize << self.rate.0) - 1);
        let (full, rest) = (rows >> shift, rows & mask);
        full as u64 + u64::from(rest > 0 && (self.mixed(full) as usize & mask) < rest)
    }

    /// The same sample with a lower rate if needed: at most about `cap` values of `rows` rows with `values` values each, and at
    /// least one row.
    #[must_use]
    pub fn capped(self, rows: usize, values: usize, cap: usize) -> Self {
        let all = rows.saturating_mul(values);
        if all <= cap {
            return self;
        }
        let needed = all.div_ceil(cap.max(1)).next_power_of_two().trailing_zeros();
        let possible = rows.max(1).ilog2();
        Self { rate: self.rate.max(SamplingRate::halved(needed.min(possible) as u8)), ..self }
    }

    /// A number that depends on the request and `number`, for choices within a block or a row.
    #[inline]
    pub(crate) fn mixed(&self, number: usize) -> u64 {
        splitmix64(self.hash ^ splitmix64(number as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_kept_with_the_same_probability_and_the_weights_add_up() {
        let cases = [(0, 7), (1, 7), (3, 100), (3, 1), (5, 33), (10, 1), (10, 5000)];
        for ((halvings, rows), whole) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
            let requests = 40_000_u64;
            let (mut total, mut first, mut last) = (0u64, 0u64, 0u64);
            for hash in 0..requests {
                let rate = SamplingRate::halved(halvings);
                let hash = splitmix64(hash);
                let sample =
                    if whole { RowSample::of_request(hash, rate, rows) } else { RowSample::new(hash, rate) };
                assert!(!sample.is_none() || sample.count(rows) == 0);
                assert_eq!(sample.count(rows), sample.rows(rows).count() as u64);
                for row in sample.rows(rows) {
                    total += sample.weight();
                    first += u64::from(row == 0);
                    last += u64::from(row == rows - 1);
                }
            }
            let share = SamplingRate::halved(halvings).share();
            let wanted = requests as f64 * share;
            for (name, found) in [("first", first), ("last", last)] {
                assert!(
                    (found as f64 - wanted).abs() <= 5.0 * wanted.sqrt() + 1.0,
                    "{name} of {rows}: {found}"
                );
            }
            let (found, wanted) = (total as f64, (requests * rows as u64) as f64);
            assert!(
                (found / wanted - 1.0).abs() <= 5.0 / (wanted * share).sqrt(),
                "{halvings} {rows}: {found}"
            );
        }
    }

    #[test]
    fn a_cap_holds_for_any_number_of_rows_and_leaves_one() {
        for (rows, values, cap) in [
            (8_000_000, 1, 65_536),
            (8_000_000, 1, 1),
            (1, 65_536, 100),
            (3, 50_000, 65_536),
            (10, 10, 100),
            (1 << 40, 1 << 30, 1 << 16),
        ] {
            let sample = RowSample::new(7, SamplingRate::ALL).capped(rows, values, cap);
            let blocks = rows.div_ceil(sample.weight() as usize);
            assert!(
                blocks >= 1
                    && (blocks <= 2
                        || blocks.saturating_mul(values) <= cap + values
                        || sample.rate == SamplingRate::LOWEST),
                "{rows} x {values}: {blocks}"
            );
            if rows <= 1 << 24 {
                assert!(rows > 2 * sample.weight() as usize || sample.count(rows) <= 2);
            }
        }
        assert_eq!(RowSample::new(7, SamplingRate::ALL).capped(10, 10, 100).weight(), 1);
        assert_eq!(
            RowSample::new(7, SamplingRate::halved(9)).capped(1000, 1, 500).weight(),
            512,
            "a cap never adds rows"
        );
    }

    #[test]
    fn splitmix_gives_its_published_numbers() {
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }
}
