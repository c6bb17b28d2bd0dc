//! Whole numbers in decimal.
//!
//! Next: `response/singles`.

/// The most bytes of a whole number of 64 bits with its sign.
const MAX_BYTES: usize = 20;

/// The decimal digits of 0 to 99.
static DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends a sign and a magnitude in decimal.
#[inline]
pub(crate) fn write_integer(out: &mut Vec<u8>, negative: bool, magnitude: u64) {
    if magnitude < 10 && !negative {
        // As most dimensions and labels are.
        return out.push(b'0' + magnitude as u8);
    }
    write_long_integer(out, negative, magnitude);
}

fn write_long_integer(out: &mut Vec<u8>, negative: bool, magnitude: u64) {
    let mut digits = [0u8; MAX_BYTES];
    let mut at = MAX_BYTES;
    let mut left = magnitude;
    while left >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&DIGIT_PAIRS[(left % 100) as usize]);
        left /= 100;
    }
    if left >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&DIGIT_PAIRS[left as usize]);
    } else {
        at -= 1;
        digits[at] = b'0' + left as u8;
    }
    if negative {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_the_standard_library_writes_them() {
        let mut value = 1u64;
        for step in 0..200u64 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 64);
            for value in [value, u64::MAX, 0, 9, 10, 99, 100, 101, 999, 1000] {
                let mut out = Vec::new();
                write_integer(&mut out, false, value);
                assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
            }
        }
        let mut out = Vec::new();
        write_integer(&mut out, true, i64::MIN.unsigned_abs());
        assert_eq!(out, i64::MIN.to_string().into_bytes());
    }
}
