//! The exponential histogram of OTLP and of Prometheus' native histograms: bucket k holds `(b^k, b^(k+1)]` with
//! `b = 2^(2^-scale)`. The buckets are the same in every process, so that merging is exact.
//!
//! Every feature has one: for dashboards, for values outside the reference's range, and for features without a baseline. Drift is
//! never tested on it, because it is too coarse for narrow features far from 0.
//!
//! Source: OpenTelemetry data model, ExponentialHistogram. Next: `moments`.

/// The scale at which values are counted: 32 buckets per power of two, relative error (b-1)/(b+1) = 1.08 %.
pub const SCALE: i8 = 5;
/// Values of smaller magnitude go to the zero bucket (the smallest normal `f32`).
pub const ZERO_BELOW: f64 = 1.175_494_350_822_287_5e-38;
/// The lowest bucket index at [`SCALE`], for values just above [`ZERO_BELOW`].
pub const MIN_INDEX: i32 = -126 * 32 - 1;
/// The highest bucket index at [`SCALE`]. It also holds all values above 2^128 (1 - 1/32).
pub const MAX_INDEX: i32 = 128 * 32 - 1;

/// Mantissa bits of 2^(i/32), rounded down, for i = 0..32. A value exceeds the real boundary if its mantissa exceeds this.
const BOUNDARIES: [u64; 32] = [
    0x0000000000000,
    0x059b0d3158574,
    0x0b5586cf9890f,
    0x11301d0125b50,
    0x172b83c7d517a,
    0x1d4873168b9aa,
    0x2387a6e756238,
    0x29e9df51fdee1,
    0x306fe0a31b715,
    0x371a7373aa9ca,
    0x3dea64c123422,
    0x44e086061892d,
    0x4bfdad5362a27,
    0x5342b569d4f81,
    0x5ab07dd485429,
    0x6247eb03a5584,
    0x6a09e667f3bcc,
    0x71f75e8ec5f73,
    0x7a11473eb0186,
    0x82589994cce12,
    0x8ace5422aa0db,
    0x93737b0cdc5e4,
    0x9c49182a3f090,
    0xa5503b23e255c,
    0xae89f995ad3ad,
    0xb7f76f2fb5e46,
    0xc199bdd85529c,
    0xcb720dcef9069,
    0xd5818dcfba487,
    0xdfc97337b9b5e,
    0xea4afa2a490d9,
    0xf50765b6e4540,
];

/// For the top six mantissa bits: the highest boundary at or below the lowest mantissa with them. Boundaries are further
/// apart than 1/64, so that one comparison finishes the search.
const START: [u8; 64] = start_table();

const fn start_table() -> [u8; 64] {
    let mut table = [0; 64];
    let mut cell = 0;
    while cell < 64 {
        let lowest = (cell as u64) << 46;
        let mut k = 31;
        while BOUNDARIES[k] > lowest {
            k -= 1;
        }
        table[cell] = k as u8;
        cell += 1;
    }
    table
}

/// The bucket of a magnitude at [`SCALE`], or `None` for the zero bucket. `magnitude` is finite and not negative.
#[inline]
pub fn index(magnitude: f64) -> Option<i32> {
    if magnitude < ZERO_BELOW {
        return None;
    }
    // One step down makes "above the boundary" into "at or above it": upper-inclusive buckets.
    let bits = magnitude.to_bits() - 1;
    let mantissa = bits & ((1 << 52) - 1);
    let start = START[(mantissa >> 46) as usize];
    let next = usize::from(start) + 1;
    let within = i32::from(start) + i32::from(next < 32 && mantissa >= BOUNDARIES[next & 31]);
    let exponent = (bits >> 52) as i32 - 1023;
    Some((exponent * 32 + within).min(MAX_INDEX))
}

/// The upper boundary of a bucket at a scale.
pub fn upper(index: i32, scale: i8) -> f64 {
    (f64::from(index.saturating_add(1)) * (-f64::from(scale)).exp2()).exp2()
}

/// The most buckets of both signs together. With more the scale is halved. 100 000 normally distributed values with few near 0
/// fill about 900.
pub const MAX_BUCKETS: usize = 1024;
/// The coarsest scale: 16 powers of two are one bucket, so that both signs together never have more than [`FEWEST`].
pub const MIN_SCALE: i8 = -4;
/// The number of halvings from [`SCALE`] to [`MIN_SCALE`].
pub(crate) const HALVINGS: u8 = (SCALE - MIN_SCALE) as u8;
/// The number of buckets at [`MIN_SCALE`].
pub const FEWEST: usize = 34;

/// A bucket and its count in one number: sign, index and count. Numbers have the order of sign and index.
pub(crate) mod word {
    const COUNT_BITS: u32 = 48;
    const NEGATIVE: u16 = 1 << 15;
    /// Makes every index positive, so that no key is 0.
    const BIAS: i32 = 1 << 13;

    /// Sign and index; never 0.
    #[inline]
    pub(crate) fn key(index: i32, negative: bool) -> u16 {
        (index + BIAS) as u16 | if negative { NEGATIVE } else { 0 }
    }

    #[inline]
    pub(crate) fn of(key: u16, count: u64) -> u64 {
        (u64::from(key) << COUNT_BITS) | count.min((1 << COUNT_BITS) - 1)
    }

    #[inline]
    pub(crate) fn key_of(word: u64) -> u16 {
        (word >> COUNT_BITS) as u16
    }

    #[inline]
    pub(crate) fn count(word: u64) -> u64 {
        word & ((1 << COUNT_BITS) - 1)
    }

    pub(crate) fn is_negative(word: u64) -> bool {
        key_of(word) & NEGATIVE != 0
    }

    pub(crate) fn index(word: u64) -> i32 {
        i32::from(key_of(word) & !NEGATIVE) - BIAS
    }

    /// The same count in the bucket that contains this one at a scale that is `steps` lower.
    pub(crate) fn coarser(word: u64, steps: u32) -> u64 {
        of(key(index(word) >> steps, is_negative(word)), count(word))
    }
}

/// Counts of finite values by magnitude and sign, in at most [`MAX_BUCKETS`] buckets.
///
/// Only buckets with values are stored. If there are too many, the scale is halved: pairs of buckets become one. Boundaries nest,
/// so that the state depends on the values and not on the order of merging: the scale is the finest at which all values fit, and
/// no part has a coarser one.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialHistogram {
    scale: i8,
    /// Values with a magnitude below [`ZERO_BELOW`].
    pub zero: u64,
    /// Buckets with their counts, ascending; no count is 0.
    words: Vec<u64>,
}

impl Default for ExponentialHistogram {
    fn default() -> Self {
        Self { scale: SCALE, zero: 0, words: Vec::new() }
    }
}

impl ExponentialHistogram {
    /// The present scale: [`SCALE`] until there were too many buckets.
    pub fn scale(&self) -> i8 {
        self.scale
    }

    /// The relative error of a quantile: `(b - 1) / (b + 1)`.
    pub fn error(&self) -> f64 {
        let base = (-f64::from(self.scale)).exp2().exp2();
        (base - 1.0) / (base + 1.0)
    }

    /// Values seen.
    pub fn n(&self) -> u64 {
        self.zero + self.words.iter().map(|&word| word::count(word)).sum::<u64>()
    }

    /// Buckets of values above 0, ascending.
    pub fn positive(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        self.side(false)
    }

    /// Buckets of values below 0 by magnitude, ascending.
    pub fn negative(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        self.side(true)
    }

    fn side(&self, negative: bool) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        let first = self.words.partition_point(|&word| !word::is_negative(word));
        let words = if negative { &self.words[first..] } else { &self.words[..first] };
        words.iter().map(|&word| (word::index(word), word::count(word)))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Counts a finite value.
    pub fn record(&mut self, value: f64) {
        let Some(index) = index(value.abs()) else {
            self.zero += 1;
            return;
        };
        self.add(self.scale, &[word::of(word::key(index >> (SCALE - self.scale), value < 0.0), 1)]);
    }

    /// Halves the resolution `steps` times: pairs of buckets become one. This is exact, as boundaries nest. The scale stops at
    /// [`MIN_SCALE`].
    pub fn downscale(&mut self, steps: u8) {
        let steps = i32::from(steps).min(i32::from(self.scale - MIN_SCALE));
        if steps <= 0 {
            return;
        }
        self.scale -= steps as i8;
        self.words = united(&self.words, &[], [steps as u32, 0]);
        self.words.shrink_to_fit();
    }

    /// Adds the counts of another histogram. The scale becomes the coarser of both, or an even coarser one if there are too many
    /// buckets.
    pub fn merge(&mut self, other: &Self) {
        self.zero += other.zero;
        self.add(other.scale, &other.words);
    }

    /// Adds buckets of a scale, ascending.
    pub(crate) fn add(&mut self, scale: i8, words: &[u64]) {
        let coarsest = scale.min(self.scale);
        let steps = [self.scale, scale].map(|scale| (scale - coarsest) as u32);
        self.scale = coarsest;
        match words {
            [word] if steps == [0, 0] => self.add_one(*word),
            [] if steps[0] == 0 => {}
            _ => self.words = united(&self.words, words, steps),
        }
        while self.words.len() > MAX_BUCKETS {
            self.downscale(1);
        }
    }

    fn add_one(&mut self, new: u64) {
        match self.words.binary_search_by_key(&word::key_of(new), |&word| word::key_of(word)) {
            Ok(at) => self.words[at] += word::count(new),
            Err(at) => self.words.insert(at, new),
        }
    }

    /// The value below which a share `q` of the values lies, with the relative error of the scale. `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (low, high) = self.bucket_of(q)?;
        // The harmonic centre has the same relative distance to both ends.
        Some(if low == -high { 0.0 } else { 2.0 * low * (high / (low + high)) })
    }

    /// The bounds of the bucket with the quantile `q`. `None` without values.
    pub fn bucket_of(&self, q: f64) -> Option<(f64, f64)> {
        let n = self.n();
        let mut left = (q * n as f64).ceil().clamp(1.0, n.max(1) as f64) as u64;
        let ends = |index: i32| (upper(index - 1, self.scale), upper(index, self.scale));
        let below = |(low, high): (f64, f64)| (-high, -low);
        let negative = self.negative().rev().map(|(index, count)| (below(ends(index)), count));
        let positive = self.positive().map(|(index, count)| (ends(index), count));
        let zero = ((-ZERO_BELOW, ZERO_BELOW), self.zero);
        for (ends, count) in negative.chain([zero]).chain(positive) {
            if count >= left {
                return Some(ends);
            }
            left -= count;
        }
        None
    }
}

/// Merges two ascending lists after making each coarser. The counts of equal buckets are added.
fn united(a: &[u64], b: &[u64], steps: [u32; 2]) -> Vec<u64> {
    let mut united: Vec<u64> = Vec::with_capacity(a.len() + b.len());
    let mut a = a.iter().map(|&word| word::coarser(word, steps[0])).peekable();
    let mut b = b.iter().map(|&word| word::coarser(word, steps[1])).peekable();
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(one), Some(two)) if word::key_of(*one) <= word::key_of(*two) => a.next(),
            (_, Some(_)) => b.next(),
            (_, None) => a.next(),
        };
        let Some(next) = next else { break };
        match united.last_mut() {
            Some(last) if word::key_of(*last) == word::key_of(next) => {
                *last = word::of(word::key_of(next), word::count(*last) + word::count(next));
            }
            _ => united.push(next),
        }
    }
    united.shrink_to_fit();
    united
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether m^32 <= 2^e in whole numbers of any size.
    fn power_at_most(m: u64, e: usize) -> bool {
        let mut digits = vec![1u32];
        for _ in 0..32 {
            let mut carry = 0u128;
            for digit in &mut digits {
                carry += u128::from(*digit) * u128::from(m);
                *digit = carry as u32;
                carry >>= 32;
            }
            while carry > 0 {
                digits.push(carry as u32);
                carry >>= 32;
            }
        }
        let top = digits.iter().rposition(|&d| d != 0).unwrap();
        let bits = top * 32 + 32 - digits[top].leading_zeros() as usize;
        let is_power = digits[top].is_power_of_two() && digits[..top].iter().all(|&d| d == 0);
        bits <= e || (bits == e + 1 && is_power)
    }

    #[test]
    fn boundaries_are_the_exact_roots_rounded_down() {
        for (i, &mantissa) in BOUNDARIES.iter().enumerate() {
            // ((2^52 + m) / 2^52)^32 <= 2^i  <=>  (2^52 + m)^32 <= 2^(52*32 + i)
            let m = (1 << 52) + mantissa;
            assert!(power_at_most(m, 52 * 32 + i), "{i}");
            assert!(!power_at_most(m + 1, 52 * 32 + i), "{i}");
        }
    }

    #[test]
    fn buckets_are_upper_inclusive_at_every_boundary() {
        for exponent in [-126i32, -3, 0, 5, 127] {
            for (i, &mantissa) in BOUNDARIES.iter().enumerate() {
                let boundary = f64::from_bits((((exponent + 1023) as u64) << 52) | mantissa);
                let bucket = exponent * 32 + i as i32;
                assert_eq!(index(boundary), Some(bucket - 1), "{exponent} {i}");
                assert_eq!(index(boundary.next_up()), Some(bucket), "{exponent} {i}");
            }
        }
        assert_eq!(index(ZERO_BELOW), Some(MIN_INDEX));
        assert_eq!(index(ZERO_BELOW.next_down()), None);
        assert_eq!((index(0.0), index(f64::MAX), index(1.0)), (None, Some(MAX_INDEX), Some(-1)));
    }

    #[test]
    fn merge_and_downscale_are_exact() {
        let values: Vec<f64> =
            (1..2000).map(|i| (f64::from(i) * 0.618).fract().powi(3) * 100.0 - 5.0).collect();
        let mut whole = ExponentialHistogram::default();
        let (mut a, mut b) = (ExponentialHistogram::default(), ExponentialHistogram::default());
        for (i, &value) in values.iter().enumerate() {
            whole.record(value);
            if i % 3 == 0 { a.record(value) } else { b.record(value) }
        }
        let mut merged = a.clone();
        merged.merge(&b);
        assert_eq!(merged, whole);
        b.downscale(2);
        a.merge(&b);
        whole.downscale(2);
        assert_eq!(a, whole);
        whole.downscale(255);
        assert_eq!((whole.scale(), whole.n()), (MIN_SCALE, 1999));
    }

    #[test]
    fn quantiles_have_the_relative_error_of_the_scale() {
        let mut values: Vec<f64> = (1..5000).map(|i| (f64::from(i) * 0.618).fract() * 20.0 - 10.0).collect();
        let mut histogram = ExponentialHistogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        values.sort_unstable_by(f64::total_cmp);
        for q in [0.0, 0.1, 0.4, 0.6, 0.99, 1.0] {
            let (found, exact) = (histogram.quantile(q).unwrap(), crate::edges::quantile(&values, q));
            assert!((found - exact).abs() <= 0.0109 * exact.abs(), "{q}: {found} {exact}");
        }
        assert_eq!(ExponentialHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn extremes_take_a_bucket_each_and_many_kinds_of_value_make_all_of_them_coarser() {
        let mut histogram = ExponentialHistogram::default();
        for value in [2e-38, 3e38, -2e-38, -3e38] {
            (0..1000).for_each(|_| histogram.record(value));
        }
        assert_eq!((histogram.scale(), histogram.words.len(), histogram.n()), (SCALE, 4, 4000));
        for exponent in -126..128 {
            for i in 0..32 {
                let value = (f64::from(exponent) + f64::from(i) / 32.0 + 0.01).exp2();
                histogram.record(value);
                histogram.record(-value);
            }
        }
        assert!(histogram.words.len() <= MAX_BUCKETS && histogram.scale() < SCALE);
        assert!(histogram.heap_bytes() <= 2 * MAX_BUCKETS * size_of::<u64>());
        assert_eq!(histogram.n(), 4000 + 2 * 254 * 32);
        assert!((histogram.quantile(0.999).unwrap() / 3e38 - 1.0).abs() <= histogram.error() + 1e-9);
        histogram.downscale(255);
        assert!(histogram.words.len() <= FEWEST, "{}", histogram.words.len());
        assert!(histogram.quantile(0.9).unwrap().is_finite() && histogram.error() < 1.0);
    }
}
