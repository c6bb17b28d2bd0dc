//! Powers of five as 128-bit numbers, computed when this crate is compiled.
//!
//! Entry `q` is the highest 128 bits of 5^q. For q >= 0 it is truncated, and exact, as 5^55 < 2^128. For q < 0 it is the
//! reciprocal of 5^-q, rounded up.
//!
//! Source: Daniel Lemire, "Number Parsing at a Gigabyte per Second" (2021), section 5. This is the part of its table for
//! which the paper proves that the product with a 64-bit significand always rounds correctly.
//! Next: `float`.

/// The least exponent of ten in the table.
pub(super) const MIN_EXPONENT: i32 = -27;

/// The largest exponent of ten in the table.
pub(super) const MAX_EXPONENT: i32 = 55;

/// The high and the low half of 5^q, normalised to its highest bit, at index `q - MIN_EXPONENT`.
pub(super) static POWERS_OF_FIVE: [(u64, u64); (MAX_EXPONENT - MIN_EXPONENT + 1) as usize] = table();

const fn table() -> [(u64, u64); (MAX_EXPONENT - MIN_EXPONENT + 1) as usize] {
    let mut table = [(0, 0); (MAX_EXPONENT - MIN_EXPONENT + 1) as usize];
    let mut q = MIN_EXPONENT;
    while q <= MAX_EXPONENT {
        let bits = normalized(q);
        table[(q - MIN_EXPONENT) as usize] = ((bits >> 64) as u64, bits as u64);
        q += 1;
    }
    table
}

/// The highest 128 bits of 5^q, truncated for q >= 0 and rounded up for q < 0.
pub(crate) const fn normalized(q: i32) -> u128 {
    if q < 0 { reciprocal(power(-q)) } else { power(q) << power(q).leading_zeros() }
}

const fn power(q: i32) -> u128 {
    let mut power = 1;
    let mut left = q;
    while left > 0 {
        power *= 5;
        left -= 1;
    }
    power
}

/// 2^b / five + 1 with the `b` that gives 128 bits, by long division.
const fn reciprocal(five: u128) -> u128 {
    let bits = 128 - five.leading_zeros() + 127;
    let (mut quotient, mut rest) = (0u128, 1u128);
    let mut left = bits;
    while left > 0 {
        rest <<= 1;
        quotient <<= 1;
        if rest >= five {
            rest -= five;
            quotient |= 1;
        }
        left -= 1;
    }
    quotient + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_published_entries() {
        let entry = |q: i32| POWERS_OF_FIVE[(q - MIN_EXPONENT) as usize];
        assert_eq!(entry(0), (0x8000_0000_0000_0000, 0));
        assert_eq!(entry(1), (0xa000_0000_0000_0000, 0));
        assert_eq!(entry(-1), (0xcccc_cccc_cccc_cccc, 0xcccc_cccc_cccc_cccd));
        assert_eq!(entry(-2), (0xa3d7_0a3d_70a3_d70a, 0x3d70_a3d7_0a3d_70a4));
        assert_eq!(entry(22), (0x878678326eac9000, 0));
    }
}
