//! Singles in decimal: the shortest number that is read as the same single, and of these the nearest.
//!
//! Most outputs are made of singles between 2^-19 and 2^43, which have no exponent in decimal. Here they become digits with one
//! multiplication, and the digits become text within one word of 128 bits. Zero, powers of two and other magnitudes are left to `zmij`, which
//! writes all singles as they are written here.
//!
//! Source: Raffaello Giulietti, "The Schubfach way to render doubles" (2020), for 24 bits of significand. A test compares all singles.

use crate::numbers::powers;

/// The exponent of two of the smallest single that is written here.
const FIRST_EXPONENT: i32 = -19;
/// One above the exponent of two of the largest.
const END_EXPONENT: i32 = 43;
/// The bits of a significand that are stored.
const STORED_BITS: i32 = 23;
const BIAS: i32 = 127;
/// The bits of a product that are behind its point.
const FRACTION_BITS: u32 = 34;

/// From a significand of 24 bits to a decimal number, for all singles with the same exponent of two.
#[derive(Clone, Copy)]
struct Scale {
    /// The highest 64 bits of the power of ten that makes a significand a number of six to eight digits, rounded up.
    power: u64,
    /// Half of the distance to the next single, in units of the product.
    half_step: u64,
    /// What a significand is shifted by, so that the point of the product is known.
    shift: u32,
    /// The exponent of ten of the digit behind the point.
    exponent: i32,
}

static SCALES: [Scale; (END_EXPONENT - FIRST_EXPONENT) as usize] = {
    let mut scales =
        [Scale { power: 0, half_step: 0, shift: 0, exponent: 0 }; (END_EXPONENT - FIRST_EXPONENT) as usize];
    let mut exponent = FIRST_EXPONENT;
    while exponent < END_EXPONENT {
        scales[(exponent - FIRST_EXPONENT) as usize] = scale(exponent - STORED_BITS);
        exponent += 1;
    }
    scales
};

/// The scale of singles whose significand counts units of 2^`unit`.
const fn scale(unit: i32) -> Scale {
    // The constants are log10(2) and log2(10), in units of 2^-20 and 2^-16; both floors are right for these exponents.
    let exponent = (unit * 315_653) >> 20;
    let scaled_by = -exponent - 1;
    let bits = (scaled_by * 217_707) >> 16;
    let power = (powers::normalized(scaled_by) >> 64) as u64;
    let shift = (unit + bits + 1 + FRACTION_BITS as i32) as u32;
    Scale { power: power + 1, half_step: power >> (65 - shift), shift, exponent }
}

/// Appends a finite number.
#[inline]
pub(crate) fn write_single(out: &mut Vec<u8>, value: f32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << STORED_BITS) - 1);
    let exponent = (bits >> STORED_BITS) as usize & 0xff;
    match SCALES.get(exponent.wrapping_sub((BIAS + FIRST_EXPONENT) as usize)) {
        // The distances to the singles below and above a power of two differ.
        Some(scale) if fraction != 0 => {
            if value < 0.0 {
                out.push(b'-');
            }
            let Text { bytes, length } = scale.shortest(fraction | 1 << STORED_BITS).text();
            // One store of a known size is cheaper than a copy of the right one.
            let end = out.len() + length;
            out.extend_from_slice(&bytes.to_le_bytes());
            out.truncate(end);
        }
        _ => write_seldom(out, value),
    }
}

#[cold]
fn write_seldom(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// A decimal number.
struct Decimal {
    /// Seven to nine digits. Those at the end may be zeros.
    digits: u32,
    /// The exponent of ten of the last of them.
    exponent: i32,
}

impl Scale {
    /// The shortest decimal number that rounds to this significand.
    #[inline]
    fn shortest(&self, significand: u32) -> Decimal {
        let scaled = u64::from(significand) << self.shift;
        let product = ((u128::from(self.power) * u128::from(scaled)) >> 64) as u64;
        let (whole, part) = (product >> FRACTION_BITS, product & ((1 << FRACTION_BITS) - 1));
        // A number in the middle between two singles rounds to the even one.
        let reach = self.half_step + u64::from(significand & 1 == 0);
        let rounds_up = (part + reach) >> FRACTION_BITS != 0;
        let digits = if rounds_up || reach > part {
            (whole + u64::from(rounds_up)) * 10
        } else {
            // A quarter is nearer to the even digit.
            let is_quarter = part == 1 << (FRACTION_BITS - 2);
            let digit = (part * 10 + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
            whole * 10 + if is_quarter { 2 } else { digit }
        };
        Decimal { digits: digits as u32, exponent: self.exponent }
    }
}

/// Up to sixteen characters, the first one in the lowest byte.
struct Text {
    bytes: u128,
    length: usize,
}

const ZEROS: u128 = u128::MAX / 0xff * b'0' as u128;
/// What makes a zero the point.
const POINT: u128 = (b'0' ^ b'.') as u128;

impl Decimal {
    /// The number with a point and without an exponent.
    #[inline]
    fn text(&self) -> Text {
        // Nine digits, and the exponent of ten of the first one.
        let (nine, exponent) = match self.digits {
            100_000_000.. => (self.digits, self.exponent + 8),
            10_000_000.. => (self.digits * 10, self.exponent + 7),
            _ => (self.digits * 100, self.exponent + 6),
        };
        let others = eight_digits(nine % 100_000_000);
        let digits = u128::from(nine / 100_000_000) | u128::from(others) << 8;
        let count = 9 - others.leading_zeros() as usize / 8;
        if exponent < 0 {
            // As 0.00123: the digits stand behind a zero, the point and other zeros.
            let before = (1 - exponent) as usize;
            Text { bytes: (ZEROS ^ POINT << 8) | digits << (8 * before), length: before + count }
        } else {
            // As 12.3 or 120.0: the point stands behind the digit of the ones.
            let whole = (1 + exponent) as usize;
            let low = (1_u128 << (8 * whole)) - 1;
            let digits = (digits & low) | (digits & !low) << 8;
            Text { bytes: (ZEROS ^ POINT << (8 * whole)) | digits, length: count.max(whole + 1) + 1 }
        }
    }
}

/// The eight digits of a number below 10^8, the first one in the lowest byte. A division by a constant is a multiplication, and all
/// lanes of a word are divided at once.
#[inline]
fn eight_digits(number: u32) -> u64 {
    let fours = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    let hundreds = ((fours * 5_243) >> 19) & 0x0000_007f_0000_007f;
    let twos = (fours << 16) - hundreds * ((100 << 16) - 1);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    (twos << 8) - tens * ((10 << 8) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: f32, out: &mut Vec<u8>) -> &[u8] {
        out.clear();
        write_single(out, value);
        out
    }

    fn compare(bits: impl Iterator<Item = u32>) {
        let (mut out, mut buffer) = (Vec::new(), zmij::Buffer::new());
        for value in bits.map(f32::from_bits).filter(|value| value.is_finite()) {
            assert_eq!(
                written(value, &mut out),
                buffer.format_finite(value).as_bytes(),
                "{:#x}",
                value.to_bits()
            );
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let mut out = Vec::new();
        for (value, text) in [
            (0.1, "0.1"),
            (-12.5, "-12.5"),
            (3.0, "3.0"),
            (120.0, "120.0"),
            (16_777_215.0, "16777215.0"),
            (1.234_567_8e12, "1234567800000.0"),
            (0.000_012_345_679, "0.000012345679"),
            (0.333_333_34, "0.33333334"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e-9, "1e-9"),
        ] {
            assert_eq!(std::str::from_utf8(written(value, &mut out)).unwrap(), text);
        }
    }

    #[test]
    fn eight_digits_are_those_of_the_number() {
        for number in (0..100_000_000_u32).step_by(7_919).chain([9, 99, 9_999, 10_000, 99_999_999]) {
            let digits = eight_digits(number) | 0x3030_3030_3030_3030;
            assert_eq!(digits.to_le_bytes()[..], *format!("{number:08}").as_bytes());
        }
    }

    #[test]
    fn singles_are_written_as_by_the_library_that_writes_all_of_them() {
        // A prime step, so that all exponents and all ends of significands occur; and what is near the ends of each exponent.
        compare((0..=u32::MAX).step_by(15_013));
        let ends = (0..=0x1ff_u32)
            .flat_map(|top| (0..200).map(move |low| (top << 23).wrapping_add(low).wrapping_sub(100)));
        compare(ends);
    }

    #[test]
    #[ignore = "takes minutes: all 2^32 of them"]
    fn all_singles_are_written_as_by_the_library() {
        compare(0..=u32::MAX);
    }
}
