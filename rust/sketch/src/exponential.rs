//! The exponential histogram of OTLP and of Prometheus' native histograms: bucket k holds `(b^k, b^(k+1)]` with
//! `b = 2^(2^-scale)`, the same for every process, so that merging is exact. Kept of every feature: for dashboards, for values
//! outside the reference's range, and where there is no baseline yet; never the sketch that drift is judged by (it is blind
//! to narrow features far from 0).
//!
//! Source: OpenTelemetry data model, ExponentialHistogram. Next: `moments`.

/// The scale at which values are counted: 32 buckets per power of two, relative error (b-1)/(b+1) = 1.08 %.
pub const SCALE: i8 = 5;
/// Values of smaller magnitude go to the zero bucket (the smallest normal `f32`).
pub const ZERO_BELOW: f64 = 1.175_494_350_822_287_5e-38;
/// The lowest bucket index at [`SCALE`]; holds what is just above [`ZERO_BELOW`].
pub const MIN_INDEX: i32 = -126 * 32 - 1;
/// The highest bucket index at [`SCALE`]; holds everything above 2^128 (1 - 1/32) as well.
pub const MAX_INDEX: i32 = 128 * 32 - 1;

/// Mantissa bits of 2^(i/32), rounded down, for i = 0..32: a value exceeds the real boundary when its mantissa exceeds this.
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

/// Counts per bucket from `offset` on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// The index of the first count.
    pub offset: i32,
    /// Values per bucket; the first and the last are not 0 unless empty.
    pub counts: Vec<u64>,
}

impl Buckets {
    /// Adds `count` values to a bucket.
    pub fn add(&mut self, index: i32, count: u64) {
        if count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.offset = index;
        }
        if index < self.offset {
            let grow = (self.offset - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, grow));
            self.offset = index;
        }
        let at = (index - self.offset) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += count;
    }

    /// The buckets that are not empty, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(i, &count)| (self.offset + i as i32, count))
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts of finite values by magnitude and sign.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialHistogram {
    scale: i8,
    /// Values with a magnitude below [`ZERO_BELOW`].
    pub zero: u64,
    /// Values above 0.
    pub positive: Buckets,
    /// Values below 0, by magnitude.
    pub negative: Buckets,
}

impl Default for ExponentialHistogram {
    fn default() -> Self {
        Self { scale: SCALE, zero: 0, positive: Buckets::default(), negative: Buckets::default() }
    }
}

impl ExponentialHistogram {
    /// The present scale: [`SCALE`] until downscaled.
    pub fn scale(&self) -> i8 {
        self.scale
    }

    /// Values seen.
    pub fn n(&self) -> u64 {
        self.zero + self.positive.total() + self.negative.total()
    }

    /// Counts a finite value.
    pub fn record(&mut self, value: f64) {
        let Some(index) = index(value.abs()) else {
            self.zero += 1;
            return;
        };
        let index = index >> (SCALE - self.scale);
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        side.add(index, 1);
    }

    /// Halves the resolution `steps` times (pairs of buckets become one); exact, as boundaries nest. The scale stops at -10.
    pub fn downscale(&mut self, steps: u8) {
        let steps = i32::from(steps).min(i32::from(self.scale) + 10);
        self.scale -= steps as i8;
        for side in [&mut self.positive, &mut self.negative] {
            let mut wider = Buckets::default();
            for (index, count) in side.iter() {
                wider.add(index >> steps, count);
            }
            *side = wider;
        }
    }

    /// Adds what another one saw; the coarser of both scales remains.
    pub fn merge(&mut self, other: &Self) {
        if other.scale < self.scale {
            self.downscale((self.scale - other.scale) as u8);
        }
        let shift = other.scale - self.scale;
        self.zero += other.zero;
        for (index, count) in other.positive.iter() {
            self.positive.add(index >> shift, count);
        }
        for (index, count) in other.negative.iter() {
            self.negative.add(index >> shift, count);
        }
    }

    /// The value below which a share `q` lies, with the relative error of the scale; `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (low, high) = self.bucket_of(q)?;
        // The harmonic centre has the same relative distance to both ends.
        Some(if low == -high { 0.0 } else { 2.0 * low * (high / (low + high)) })
    }

    /// The ends of the bucket that the value lies in below which a share `q` lies; `None` without values.
    pub fn bucket_of(&self, q: f64) -> Option<(f64, f64)> {
        let n = self.n();
        let mut left = (q * n as f64).ceil().clamp(1.0, n.max(1) as f64) as u64;
        let ends = |index: i32| (upper(index - 1, self.scale), upper(index, self.scale));
        let below = |(low, high): (f64, f64)| (-high, -low);
        let negative = self.negative.iter().rev().map(|(index, count)| (below(ends(index)), count));
        let positive = self.positive.iter().map(|(index, count)| (ends(index), count));
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
        assert_eq!((whole.scale(), whole.n()), (-10, 1999));
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
}
