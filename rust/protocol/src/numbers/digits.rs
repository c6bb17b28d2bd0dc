//! Runs of decimal digits, eight bytes at a time (SWAR: one 64-bit word as eight lanes).
//!
//! Source: the eight-digit conversion is Johnny Lee's, as in simdjson and fast_float; the mask and the shift
//! that make it work for fewer than eight digits without a branch are the usual SWAR byte tests.
//! Next: `int`.

/// Ten to the power of the index, for the digits of one word.
pub(crate) const POWERS_OF_TEN: [u64; 9] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The eight bytes at `pos`, the first one lowest; past the end they are zero, which is no digit.
#[inline(always)]
pub(crate) fn load(data: &[u8], pos: usize) -> u64 {
    match data.get(pos..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => load_tail(data, pos),
    }
}

#[cold]
fn load_tail(data: &[u8], pos: usize) -> u64 {
    let tail = data.get(pos..).unwrap_or_default();
    tail.iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// The sixteen bytes at `pos`, like [`load`].
#[inline(always)]
pub(crate) fn load_wide(data: &[u8], pos: usize) -> u128 {
    match data.get(pos..).and_then(|rest| rest.first_chunk::<16>()) {
        Some(bytes) => u128::from_le_bytes(*bytes),
        None => u128::from(load_tail(data, pos + 8)) << 64 | u128::from(load_tail(data, pos)),
    }
}

/// The number of digits at the beginning of a word (0 to 8), and their value.
#[inline(always)]
pub(crate) fn leading_digits(word: u64) -> (usize, u64) {
    let lanes = word ^ 0x3030_3030_3030_3030;
    // A lane is 0..=9 exactly if adding 0x76 leaves its high bit clear. A carry can only spoil later lanes.
    let not_digits = (lanes.wrapping_add(0x7676_7676_7676_7676) | lanes) & 0x8080_8080_8080_8080;
    let count = (not_digits.trailing_zeros() / 8) as usize;
    (count, value(lanes, count))
}

/// The value of the first `count` lanes. They are shifted to the end of the word: zeros in front change nothing.
#[inline(always)]
fn value(lanes: u64, count: usize) -> u64 {
    // In two steps, because a shift by 64 is undefined.
    let half = 32 - 4 * count as u32;
    eight_digits(lanes << half << half)
}

/// The value of eight lanes.
#[inline(always)]
fn eight_digits(lanes: u64) -> u64 {
    let pairs = lanes.wrapping_mul(10).wrapping_add(lanes >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// Sixteen bytes as lanes, 0 to 9 for a digit, and a mask of the bytes that are no digits.
#[derive(Clone, Copy)]
pub(crate) struct DigitWindow {
    lanes: u128,
    not_digits: u128,
}

impl DigitWindow {
    /// Tests all sixteen bytes at once.
    #[inline(always)]
    pub(crate) fn new(bytes: u128) -> DigitWindow {
        const ONES: u128 = u128::MAX / 0xff;
        let lanes = bytes ^ (0x30 * ONES);
        DigitWindow { lanes, not_digits: (lanes.wrapping_add(0x76 * ONES) | lanes) & (0x80 * ONES) }
    }

    /// The number of digits in front: 16 if all bytes are digits.
    #[inline(always)]
    pub(crate) fn first_stop(self) -> usize {
        (self.not_digits.trailing_zeros() / 8) as usize
    }

    /// The index of the second byte that is no digit: 16 if there is none. Exact if the first such byte is a point.
    ///
    /// It does not depend on [`first_stop`](Self::first_stop), so that the processor knows the end of a number early.
    #[inline(always)]
    pub(crate) fn second_stop(self) -> usize {
        ((self.not_digits & self.not_digits.wrapping_sub(1)).trailing_zeros() / 8) as usize
    }

    /// Whether the first byte is the digit 0.
    #[inline(always)]
    pub(crate) fn starts_with_zero(self) -> bool {
        self.lanes as u8 == 0
    }

    /// The value of the first `count` digits, of which there is at least one.
    #[inline(always)]
    pub(crate) fn value(self, count: usize) -> u64 {
        sixteen_digits(self.lanes, count)
    }

    /// The value of the `count` digits around the first stop, of which there is at least one.
    #[inline(always)]
    pub(crate) fn value_around_stop(self, count: usize) -> u64 {
        // The lanes before the stop stay, the others close the gap.
        let before = (self.not_digits ^ self.not_digits.wrapping_sub(1)) >> 8;
        sixteen_digits((self.lanes & before) | ((self.lanes >> 8) & !before), count)
    }
}

/// The value of the first `count` of sixteen lanes; `count` is at least 1.
#[inline(always)]
fn sixteen_digits(lanes: u128, count: usize) -> u64 {
    let aligned = lanes << (128 - 8 * count as u32);
    eight_digits(aligned as u64) * POWERS_OF_TEN[8] + eight_digits((aligned >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_of_digits_is_counted_and_valued() {
        let text = b"90817263";
        for count in 0..=8 {
            for stop in [b',', b'.', b'e', b':', b'/', 0, 0x80, 0xb5, 0xff] {
                let mut bytes = *text;
                if count < 8 {
                    bytes[count] = stop;
                }
                let want = bytes[..count].iter().fold(0, |value, &byte| value * 10 + u64::from(byte - b'0'));
                assert_eq!(leading_digits(load(&bytes, 0)), (count, want), "{count} digits, then {stop}");
            }
        }
    }

    #[test]
    fn the_tail_of_a_buffer_reads_as_no_digit() {
        assert_eq!(leading_digits(load(b"12", 0)), (2, 12));
        assert_eq!(leading_digits(load(b"12", 1)), (1, 2));
        assert_eq!(leading_digits(load(b"12", 2)), (0, 0));
        assert_eq!(leading_digits(load(b"12", 9)), (0, 0));
    }
}
